"""Sorting by small whole numbers in bounded memory."""

from __future__ import annotations

import numpy as np

CHUNK = 1 << 20  # values sorted at a time


def counting_sort(values: np.ndarray, count: int, given: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Sorts positions by their value, those of one value in order; needs little memory besides the result.

    Args:
        values: (N,) whole numbers from 0 to below ``count``.
        given: (n,) the positions to sort, in the order that those of one value are to keep; None for all.

    Returns:
        (n,) int32 positions, int64 if they need it; (count + 1,) int64, where those of each value begin among them.
    """
    length = len(values) if given is None else len(given)
    bounds = np.zeros(count + 1, np.int64)
    for start in range(0, length, CHUNK):
        bounds[1:] += np.bincount(values[_chunk(given, start, length)], minlength=count)
    np.cumsum(bounds, out=bounds)
    positions = np.empty(length, np.int32 if len(values) < 1 << 31 else np.int64)
    free = bounds[:-1].copy()
    for start in range(0, length, CHUNK):
        chunk = _chunk(given, start, length)
        order = np.argsort(values[chunk], kind="stable")
        found = values[chunk][order]
        firsts = np.flatnonzero(np.diff(found, prepend=-1))
        lengths = np.diff(firsts, append=len(found))
        within = np.arange(len(found)) - np.repeat(firsts, lengths)
        positions[free[found] + within] = chunk[order]
        free[found[firsts]] += lengths
    return positions, bounds


def _chunk(given: np.ndarray | None, start: int, length: int) -> np.ndarray:
    return np.arange(start, min(start + CHUNK, length)) if given is None else given[start : start + CHUNK]
