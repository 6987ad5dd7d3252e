"""Near-duplicates: pairs of images that show one photograph."""

from __future__ import annotations

import concurrent.futures as futures
import dataclasses
import os
from collections.abc import Callable, Iterator

import numpy as np
import scipy.stats

from benchmarks.audit.centres import BLOCK_VALUES, Space, largest, place, row_blocks
from benchmarks.audit.picture import VIEW_PX, detail_similarity, symmetric_part, view_similarity
from benchmarks.scoring.vectors import unit_length
from pipeline.progress import Progress

NEIGHBOURS = 2  # of an image in each cell
MAX_CELL = 1 << 14  # images compared with each other at a time
MAX_ORDINARY, MIN_ORDINARY = 500, 30  # pairs of which the ordinary similarity is learned
VIEW_QUANTILE = 0.99  # of the ordinary pairs: what is compared in detail is more similar
EXPECTED_FALSE = 0.1  # pairs in the whole set
TAIL = 0.95  # quantile of the ordinary pairs that gives their spread: their tail is longer than that of a normal
MAX_CORRELATION = 0.999
MAX_PIVOTS = 1 << 12  # images in whose neighbourhood others look for similar ones
PAIR_BLOCK, THREAD_PAIRS = 1 << 16, 256
_SEED = 0

Detail = Callable[[int], np.ndarray]  # row -> picture for `detail_similarity`


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ordinary:
    """How similar the pictures of pairs are that do not show one photograph.

    Attributes:
        view: similarity of small pictures, below which two pictures are not compared in detail.
        detail: similarity of details from which two pictures show one photograph.
    """

    view: float
    detail: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Copies:
    """P pairs that show one photograph.

    Attributes:
        pairs: (P, 2) rows.
        similarity: (P,) correlation of their details.
        threshold: see ``Ordinary``.
    """

    pairs: np.ndarray
    similarity: np.ndarray
    threshold: float


class Looks:
    """Pictures as vectors: what a face looks like, mirrored or not, independent of the identity."""

    def __init__(self, views: np.ndarray) -> None:
        """
        Args:
            views: (N, VIEW_PX, VIEW_PX) of a set, whose mean is left out of all vectors.
        """
        chosen = np.random.default_rng(_SEED).permutation(len(views))[:MAX_PIVOTS]
        parts = symmetric_part(views[np.sort(chosen)])
        self._mean = parts.mean(0)
        self.pivots = unit_length(parts - self._mean)

    def vectors(self, views: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """(N, D) float16 of unit length, written to ``out`` if given."""
        found = np.empty((len(views), self.pivots.shape[1]), np.float16) if out is None else out
        for rows in row_blocks(len(views), VIEW_PX * VIEW_PX):
            found[rows] = unit_length(symmetric_part(views[rows]) - self._mean)
        return found


def neighbours(space: Space, label: str) -> np.ndarray:
    """(P, 2) rows of pairs of similar images, the smaller row first: candidates, each once.

    Images are compared with those that share one of their nearest centres. Two copies of a photograph have nearly the
    same vector, and so share some.

    Args:
        label: of the progress.
    """
    vectors, cells = space.vectors, space.cells
    flat = cells.ravel()
    order = np.argsort(flat, kind="stable")
    order = order[flat[order] >= 0]
    starts = np.flatnonzero(np.diff(flat[order], prepend=-1))
    found = [np.empty(0, np.int64)]
    with Progress(f"neighbours by {label}", len(starts), "groups") as progress:
        for members in np.split(order // cells.shape[1], starts[1:]) if len(order) else []:
            rows = np.unique(members)
            for part in np.array_split(rows, -(-len(rows) // MAX_CELL)):
                found += _nearest_pairs(vectors[part].astype(np.float32), part, len(vectors))
            progress.update(1)
    codes = np.unique(np.concatenate(found))
    return np.stack(np.divmod(codes, len(vectors)), axis=1)


def _nearest_pairs(block: np.ndarray, rows: np.ndarray, total: int) -> Iterator[np.ndarray]:
    """Yields the pairs of each image and its nearest ones as ``first * total + second``."""
    wanted = min(NEIGHBOURS, len(rows) - 1)
    step = max(BLOCK_VALUES // len(rows), 1)
    for start in range(0, len(rows) if wanted else 0, step):
        cosines = block[start : start + step] @ block.T
        own = np.arange(len(cosines))
        cosines[own, own + start] = -2
        near = rows[largest(cosines, wanted)]
        pairs = np.sort(np.stack([np.broadcast_to(rows[own + start, None], near.shape), near], -1).reshape(-1, 2))
        yield np.unique(pairs[:, 0].astype(np.int64) * total + pairs[:, 1])


def neighbours_between(probes: np.ndarray, space: Space, label: str) -> np.ndarray:
    """(P, 2) rows of probes and of similar images of a space, found as ``neighbours`` does.

    Args:
        probes: (M, D) of unit length.
        label: of the progress.
    """
    near = place(probes, space.centres, label)
    width = space.cells.shape[1]
    order = np.argsort(space.cells.ravel(), kind="stable")
    members, occupied = order // width, space.cells.ravel()[order]
    found = [_no_pairs()]
    for cell in np.unique(near[near >= 0]).tolist():
        rows = members[slice(*np.searchsorted(occupied, (cell, cell + 1)))]
        looked_up = np.flatnonzero((near == cell).any(1))
        wanted = min(NEIGHBOURS, len(rows))
        if not wanted:
            continue
        block = space.vectors[rows].astype(np.float32)
        for part in row_blocks(len(looked_up), len(rows)):
            cosines = probes[looked_up[part]].astype(np.float32) @ block.T
            closest = rows[largest(cosines, wanted)]
            found.append(np.stack([np.repeat(looked_up[part], wanted), closest.ravel()], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def ordinary_pairs(first: np.ndarray, count: np.ndarray) -> np.ndarray:
    """(P, 2) rows of random pairs of one identity each; of two identities if there are too few of them."""
    rng = np.random.default_rng(_SEED)
    large = np.flatnonzero(count > 1)
    if len(large) >= 1 and count[large].sum() >= MIN_ORDINARY:
        chosen = rng.choice(large, MAX_ORDINARY, p=count[large] / count[large].sum())
        offsets = np.array([rng.choice(count[identity], 2, replace=False) for identity in chosen.tolist()])
        return np.unique(np.sort(first[chosen, None] + offsets, axis=1), axis=0)
    pairs = np.sort(rng.integers(0, count.sum(), (MAX_ORDINARY, 2)), axis=1)
    return np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0)


def _no_pairs() -> np.ndarray:
    return np.empty((0, 2), np.int64)


def learn_ordinary(pairs: np.ndarray, views: np.ndarray, detail: Detail, compared: float) -> Ordinary:
    """Learns thresholds from pairs that are ordinary but for a few.

    Args:
        pairs: (P, 2) rows.
        compared: number of pairs in the set. The correlations of ordinary pairs are taken as normal above their
            median, after Fisher's transform; the threshold is what ``EXPECTED_FALSE`` of all pairs exceed.
    """
    if len(pairs) < MIN_ORDINARY:
        return Ordinary(view=np.inf, detail=np.inf)
    similar, mirrored = view_similarity(views[pairs[:, 0]], views[pairs[:, 1]])
    details = np.array(list(_detail_similarities(pairs, mirrored, (detail, detail))))
    centre, high = np.quantile(np.arctanh(np.minimum(details, MAX_CORRELATION)), (0.5, TAIL)).tolist()
    spread = (high - centre) / float(scipy.stats.norm.ppf(TAIL))
    limit = centre + spread * float(scipy.stats.norm.isf(min(EXPECTED_FALSE / max(compared, 1), 0.5)))
    return Ordinary(view=float(np.quantile(similar, VIEW_QUANTILE)), detail=float(np.tanh(limit)))


def find_copies(
    candidates: np.ndarray, views: tuple[np.ndarray, np.ndarray], details: tuple[Detail, Detail], ordinary: Ordinary
) -> Copies:
    """Compares the pictures of candidates.

    Args:
        candidates: (P, 2) rows; the first ones of the first views and details, the second ones of the second.
    """
    found, scores = [_no_pairs()], [np.empty(0)]
    with Progress("photographs", len(candidates), "pairs") as progress:
        for start in range(0, len(candidates), PAIR_BLOCK):
            block = candidates[start : start + PAIR_BLOCK]
            similar, mirrored = view_similarity(views[0][block[:, 0]], views[1][block[:, 1]])
            close = similar > ordinary.view
            progress.skip(int((~close).sum()))
            correlations = []
            for correlation in _detail_similarities(block[close], mirrored[close], details):
                correlations.append(correlation)
                progress.update(1)
            same = np.array(correlations) >= ordinary.detail
            found.append(block[close][same])
            scores.append(np.array(correlations)[same])
    pairs, similarity = np.concatenate(found), np.concatenate(scores)
    return Copies(pairs=pairs, similarity=similarity, threshold=ordinary.detail)


def _detail_similarities(pairs: np.ndarray, mirrored: np.ndarray, details: tuple[Detail, Detail]) -> Iterator[float]:
    """Yields the correlation of each pair, computed by threads."""

    def similarity(pair: np.ndarray, mirror: bool) -> float:
        first, second = details[0](int(pair[0])), details[1](int(pair[1]))
        return detail_similarity(first, np.ascontiguousarray(second[:, ::-1]) if mirror else second)

    with futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for start in range(0, len(pairs), THREAD_PAIRS):
            part = slice(start, start + THREAD_PAIRS)
            yield from pool.map(similarity, pairs[part], mirrored[part])


@dataclasses.dataclass(frozen=True, kw_only=True)
class LookAlikes:
    """The images of a set, searchable by person and by picture.

    Attributes:
        people: vectors of the network.
        looks: how ``pictures`` was made.
        pictures: vectors of the small pictures.
        views: (N, VIEW_PX, VIEW_PX) uint8.
        detail: row -> picture for ``detail_similarity``.
        ordinary: what tells copies from others.
    """

    people: Space
    looks: Looks
    pictures: Space
    views: np.ndarray
    detail: Detail
    ordinary: Ordinary

    def copies(self, candidates: np.ndarray) -> Copies:
        """Which candidates show one photograph."""
        return find_copies(candidates, (self.views, self.views), (self.detail, self.detail), self.ordinary)

    def copies_of(self, vectors: np.ndarray, views: np.ndarray, detail: Detail) -> Copies:
        """Pairs of other images and images of the set that show one photograph.

        Args:
            vectors: (M, D) of the network, of unit length.
            views: (M, VIEW_PX, VIEW_PX) uint8.
        """
        by_person = neighbours_between(vectors, self.people, "person")
        by_picture = neighbours_between(self.looks.vectors(views), self.pictures, "picture")
        candidates = np.unique(np.concatenate([by_person, by_picture]), axis=0)
        return find_copies(candidates, (views, self.views), (detail, self.detail), self.ordinary)
