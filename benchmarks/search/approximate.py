"""A gallery compressed by FAISS: a fast scan finds candidates, whose scores are then computed exactly.

Product quantisation with 4 bits for two float32 numbers takes a sixteenth of the memory: 128 MB for a million embeddings of
512 numbers. Graphs (HNSW) and inverted files were slower or found less, see docs/guide/search.md.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.errors import SearchError
from benchmarks.search.exact import pair_scores
from benchmarks.search.queries import SamePaths
from benchmarks.search.table import EmbeddingTable
from shards.messages import counted, install_command

FAISS = "faiss"
TRAINING_ROWS, MIN_TRAINING_ROWS = 8192, 1024
CANDIDATES = 300  # of each probe, and more if more matches are wanted
CANDIDATES_PER_MATCH = 5
CHUNK_PAIRS = 4096  # scored at a time
MIN_ROWS = 10_000  # below, the exact search takes no time


class CompressedGallery:
    """The compressed embeddings of a gallery.

    Args:
        advance: is called with the number of rows read; all rows are read twice.

    Attributes:
        size: number of embeddings.

    Raises:
        SearchError: FAISS is not installed, or the gallery is small.
    """

    def __init__(self, gallery: EmbeddingTable, advance: Callable[[int], object]) -> None:
        _check_size(gallery, gallery.rows)
        faiss = import_faiss()
        self._gallery = gallery
        parts = gallery.length // 2 if gallery.length % 2 == 0 else gallery.length
        self._index = faiss.IndexPQFastScan(gallery.length, parts, 4, faiss.METRIC_INNER_PRODUCT)
        sample = _sample(gallery, advance)
        if len(sample) < MIN_TRAINING_ROWS:
            _check_size(gallery, len(sample))
        with _one_thread(faiss):
            self._index.train(sample)
        rows = []
        for block in gallery.blocks():
            if len(block.rows):
                self._index.add(np.ascontiguousarray(block.vectors))
            rows.append(block.rows)
            advance(len(block.paths))
        self._rows = np.concatenate(rows)
        self.size = len(self._rows)

    def search(self, probes: np.ndarray, top: int, same: SamePaths) -> tuple[np.ndarray, np.ndarray]:
        """The (P, top) scores and gallery rows of (P, D) probes, as those of ``TopMatches``.

        Args:
            same: pairs that are not matches.
        """
        repeated = int(np.bincount(same.probes).max()) if len(same.probes) else 0
        count = min(candidates(top) + repeated, self.size)
        found = self._index.search(np.ascontiguousarray(probes), count)[1]
        rows = np.where(found >= 0, self._rows[found], -1)
        barred = np.isin(_pair_codes(np.arange(len(probes))[:, None], rows), _pair_codes(same.probes, same.rows))
        scores = np.where(barred | (rows < 0), -np.inf, self._scores(probes, rows)).astype(np.float32)
        order = np.lexsort((rows, -scores), axis=1)[:, :top]
        return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)

    def _scores(self, probes: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """(P, K) float32 scores of the probes with gallery rows (P, K); 0 for rows below 0."""
        flat = rows.ravel()
        order = np.argsort(flat, kind="stable")
        scores = np.zeros(len(flat), np.float32)
        for block in self._gallery.blocks():
            first, last = np.searchsorted(flat, [block.start, block.start + len(block.paths)], sorter=order)
            pairs = order[first:last]
            columns = np.searchsorted(block.rows, flat[pairs])
            for first in range(0, len(pairs), CHUNK_PAIRS):
                some = pairs[first : first + CHUNK_PAIRS]
                faces = block.vectors[columns[first : first + CHUNK_PAIRS]]
                scores[some] = pair_scores(probes[some // rows.shape[1]], faces)
        return scores.reshape(rows.shape)


def _check_size(gallery: EmbeddingTable, rows: int) -> None:
    """Raises: SearchError: the gallery is too small for an index."""
    if rows < MIN_ROWS:
        raise SearchError(
            f"{gallery.path}: {counted(rows, 'embedding')}; --index pq is for {MIN_ROWS:,} or more: leave it out"
        )


def candidates(top: int) -> int:
    """Number of candidates of each probe, for ``top`` matches."""
    return max(CANDIDATES, CANDIDATES_PER_MATCH * top)


def _pair_codes(probes: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """One number for each pair of a probe and a gallery row."""
    return (probes.astype(np.int64) << 32) + rows


def import_faiss() -> Any:
    """Raises: SearchError: FAISS is not installed."""
    try:
        return importlib.import_module(FAISS)
    except ModuleNotFoundError:
        remedy = install_command("search")
        raise SearchError(f"--index pq: {FAISS} is not installed; run: {remedy}, or leave --index out") from None


@contextlib.contextmanager
def _one_thread(faiss: Any) -> Iterator[None]:
    """Hundreds of tiny clusterings: threads would only wait for each other, twenty times as long."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def _sample(gallery: EmbeddingTable, advance: Callable[[int], object]) -> np.ndarray:
    """(N, D) embeddings of about ``TRAINING_ROWS`` random rows, the same in each run."""
    rng = np.random.default_rng(0)
    parts = []
    for block in gallery.blocks():
        parts.append(block.vectors[rng.random(len(block.rows)) < TRAINING_ROWS / gallery.rows])
        advance(len(block.paths))
    return np.concatenate(parts)
