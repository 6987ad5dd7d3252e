"""The probes of one pass over a gallery, and the gallery rows that they are not compared with."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.engine.identities import template_path
from benchmarks.errors import SearchError
from benchmarks.search.table import Block, EmbeddingTable

PASS_BYTES = 1 << 28  # of embeddings
PASS_MATCHES, PASS_CANDIDATES = 1 << 20, 1 << 22
MAX_SAME = 1 << 22  # pairs of one path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Queries:
    """Consecutive probes.

    Attributes:
        table: columns path, identity, status, error_message of all R probes.
        vectors: (P, D) float32 of those with an embedding.
        rows: (P,) their numbers in ``table``.
    """

    table: pa.Table
    vectors: np.ndarray
    rows: np.ndarray


def read_queries(probes: EmbeddingTable, top: int, candidates: int = 0) -> Iterator[Queries]:
    """Yields the probes in chunks that fit into memory with the matches, and candidates, of each."""
    limit = min(PASS_BYTES // (4 * probes.length), PASS_MATCHES // top, PASS_CANDIDATES // max(candidates, 1))
    blocks: list[Block] = []
    for block in probes.blocks():
        if blocks and block.start + len(block.paths) - blocks[0].start > limit:
            yield _queries(probes, blocks)
            blocks = []
        blocks.append(block)
    yield _queries(probes, blocks)


def _queries(probes: EmbeddingTable, blocks: list[Block]) -> Queries:
    start, end = blocks[0].start, blocks[-1].start + len(blocks[-1].paths)
    return Queries(
        table=probes.texts(["path", "identity", "status", "error_message"], np.arange(start, end)),
        vectors=np.concatenate([block.vectors for block in blocks]),
        rows=np.concatenate([block.rows for block in blocks]) - start,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamePaths:
    """Pairs of a probe, by its number among those with an embedding, and a gallery row; (N,) each, sorted by row."""

    probes: np.ndarray
    rows: np.ndarray

    def within(self, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """Probes, and columns of the embeddings of a gallery block, of the pairs that lie in the block."""
        first, last = np.searchsorted(self.rows, [block.start, block.start + len(block.paths)])
        probes, rows = self.probes[first:last], self.rows[first:last]
        usable = np.isin(rows, block.rows)
        return probes[usable], np.searchsorted(block.rows, rows[usable])

    def of(self, probes: np.ndarray) -> SamePaths:
        """The pairs of some probes (N,), sorted; renumbered from 0."""
        chosen = np.isin(self.probes, probes)
        return SamePaths(probes=np.searchsorted(probes, self.probes[chosen]), rows=self.rows[chosen])


def same_paths(queries: Queries, gallery: EmbeddingTable) -> SamePaths:
    """The gallery rows with the path of a probe.

    Raises:
        SearchError: there are millions, because a path stands in the tables many times.
    """
    return _pairs(queries.table["path"].take(pa.array(queries.rows)), gallery)


def in_template(queries: Queries, gallery: EmbeddingTable) -> int:
    """Number of probes that lie where the images of a template of the gallery lie."""
    rule = gallery.metadata.get("group", "")
    if not rule:
        return 0
    paths = queries.table["path"].take(pa.array(queries.rows)).to_pylist()
    return len(np.unique(_pairs(pa.array([template_path(path, rule) for path in paths], pa.string()), gallery).probes))


def _pairs(paths: pa.Array | pa.ChunkedArray, gallery: EmbeddingTable) -> SamePaths:
    distinct = pc.unique(paths)
    codes = pc.index_in(paths, distinct).to_numpy()
    by_code = np.argsort(codes, kind="stable")
    counts = np.bincount(codes, minlength=len(distinct))
    starts = np.cumsum(counts) - counts
    probes, rows, total = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
    for start, names in gallery.paths():
        found = pc.index_in(names, distinct)
        columns = np.flatnonzero(found.is_valid().to_numpy(zero_copy_only=False))
        code = found.take(pa.array(columns)).to_numpy()
        repeats = counts[code]
        total += int(repeats.sum())
        if total > MAX_SAME:
            raise SearchError(f"{gallery.path}: millions of pairs with the probes have one path; remove repeated rows")
        within = np.arange(int(repeats.sum())) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        probes.append(by_code[np.repeat(starts[code], repeats) + within])
        rows.append(np.repeat(columns + start, repeats))
    return SamePaths(probes=np.concatenate(probes), rows=np.concatenate(rows))
