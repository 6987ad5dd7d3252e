"""Similarity of images to the centres of identities, in blocks: memory grows only with the number of images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from benchmarks.scoring.vectors import unit_length
from pipeline.progress import Progress

BLOCK_VALUES = 1 << 24  # similarities in memory at a time
MAX_CENTRES = 1 << 14  # that every image is compared with; a random choice of more identities
CELLS = 4  # centres in whose neighbourhood an image is compared with others
_SEED = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Space:
    """Vectors, and the centres in whose neighbourhood they are.

    Attributes:
        vectors: (N, D) of unit length.
        centres: (C, D) sums or vectors of any length.
        cells: (N, K) positions of the nearest centres; -1 for none.
    """

    vectors: np.ndarray
    centres: np.ndarray
    cells: np.ndarray


def row_blocks(rows: int, width: int) -> Iterator[slice]:
    """Cuts ``rows`` into slices of at most ``BLOCK_VALUES`` values of ``width`` columns."""
    step = max(BLOCK_VALUES // max(width, 1), 1)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def identity_sums(vectors: np.ndarray, first: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(I, D) float32 weighted sums of the vectors of each identity.

    Args:
        vectors: (N, D), sorted by identity.
        first: (I,) first row of each identity.
        weights: (N,) float32.
    """
    ends = np.append(first[1:], len(vectors))
    sums = np.empty((len(first), vectors.shape[1]), np.float32)
    start = 0
    while start < len(first):
        limit = first[start] + BLOCK_VALUES // vectors.shape[1]
        stop = max(int(np.searchsorted(ends, limit, side="right")), start + 1)
        rows = slice(first[start], ends[stop - 1])
        block = vectors[rows].astype(np.float32) * weights[rows, None]
        sums[start:stop] = np.add.reduceat(block, first[start:stop] - first[start])
        start = stop
    return sums


def own_similarities(vectors: np.ndarray, sums: np.ndarray, identity: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N,) float32 cosines of each image and the centre of the other images of its identity; nan if there is none.

    Args:
        sums: (I, D) of ``identity_sums`` with the same weights.
        identity: (N,) position of the identity of each image.
    """
    found = np.empty(len(vectors), np.float32)
    squares, totals = np.einsum("id,id->i", sums, sums), np.bincount(identity, weights)
    for rows in row_blocks(len(vectors), 2 * vectors.shape[1]):
        own, weight = identity[rows], weights[rows]
        dots = np.einsum("nd,nd->n", vectors[rows].astype(np.float32), sums[own])
        # |s - w x|^2 for unit x; rounding can make it negative
        lengths = np.sqrt(np.maximum(squares[own] - 2 * weight * dots + weight**2, 0))
        alone = totals[own] - weight < 1e-3
        with np.errstate(all="ignore"):
            found[rows] = np.where(alone, np.nan, (dots - weight) / np.maximum(lengths, 1e-6))
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Others:
    """N images and the centres of other identities.

    Attributes:
        mean: (N,) mean of an image's cosines with them.
        spread: (N,) standard deviation of these cosines.
        nearest: (N,) position of the identity with the largest one.
        similarity: (N,) this largest cosine.
        cells: (N, K) positions of the nearest centres, its own identity's first; -1 for none.
    """

    mean: np.ndarray
    spread: np.ndarray
    nearest: np.ndarray
    similarity: np.ndarray
    cells: np.ndarray


def compare_with_others(vectors: np.ndarray, sums: np.ndarray, identity: np.ndarray, progress: Progress) -> Others:
    """Compares every image with the centres of all other identities, or of ``MAX_CENTRES`` random ones.

    Args:
        vectors: (N, D) of unit length.
        sums: (I, D) of ``identity_sums``.
        identity: (N,) position of the identity of each image; -1 for an image of none of them.
    """
    chosen = np.arange(len(sums))
    if len(sums) > MAX_CENTRES:
        chosen = np.sort(np.random.default_rng(_SEED).choice(len(sums), MAX_CENTRES, replace=False))
    centres = unit_length(sums[chosen])
    column = np.full(len(sums) + 1, -1)  # the last one: of no identity
    column[chosen] = np.arange(len(chosen))
    count, wanted = len(vectors), min(CELLS - 1, len(chosen))
    found = Others(
        mean=np.empty(count, np.float32),
        spread=np.empty(count, np.float32),
        nearest=np.empty(count, np.int32),
        similarity=np.empty(count, np.float32),
        cells=np.full((count, CELLS), -1, np.int32),
    )
    for rows in row_blocks(count, len(centres)):
        cosines = vectors[rows].astype(np.float32) @ centres.T
        own = column[identity[rows]]
        inside = np.flatnonzero(own >= 0)
        found.mean[rows], found.spread[rows] = _moments(cosines, inside, own[inside])
        cosines[inside, own[inside]] = -2  # below every cosine
        found.similarity[rows] = cosines.max(axis=1)
        near = largest(cosines, wanted)
        found.nearest[rows] = chosen[near[:, 0]]
        found.cells[rows, 0], found.cells[rows, 1 : wanted + 1] = identity[rows], chosen[near]
        progress.update(len(own))
    return found


def largest(values: np.ndarray, count: int) -> np.ndarray:
    """(N, ``count``) columns of the largest of (N, C) values, the largest first; -inf is written over these values.

    For a few columns this takes a tenth of the time of ``argpartition``.
    """
    columns = np.empty((len(values), count), np.intp)
    rows = np.arange(len(values))
    for place in range(count):
        columns[:, place] = values.argmax(axis=1)
        values[rows, columns[:, place]] = -np.inf
    return columns


def _moments(cosines: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each row without its own column; nan if that leaves fewer than two."""
    own = cosines[rows, columns]
    sums, squares = cosines.sum(1, dtype=np.float64), np.einsum("nc,nc->n", cosines, cosines, dtype=np.float64)
    count = np.full(len(cosines), cosines.shape[1])
    sums[rows] -= own
    squares[rows] -= own.astype(np.float64) ** 2
    count[rows] -= 1
    mean = np.where(count > 1, sums / np.maximum(count, 1), np.nan)
    return mean, np.sqrt(np.maximum(squares / np.maximum(count, 1) - mean**2, 0))


def place(vectors: np.ndarray, centres: np.ndarray, label: str) -> np.ndarray:
    """(N, K) positions of the centres nearest to vectors that belong to none of them; -1 for none."""
    with Progress(f"places by {label}", len(vectors)) as progress:
        return compare_with_others(vectors, centres, np.full(len(vectors), -1), progress).cells
