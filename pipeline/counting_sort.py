"""Sorting by small whole numbers in bounded memory."""

from __future__ import annotations

import numpy as np

CHUNK = 1 << 20  # values sorted at a time


def counting_sort(values: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorts positions by their value, those of one value in order; needs little memory besides the result.

    Args:
        values: (N,) whole numbers from 0 to below ``count``.

    Returns:
        (N,) int32 positions, int64 if they need it; (count + 1,) int64, where those of each value begin among them.
    """
    chunks = [slice(start, start + CHUNK) for start in range(0, len(values), CHUNK)]
    bounds = np.zeros(count + 1, np.int64)
    for chunk in chunks:
        bounds[1:] += np.bincount(values[chunk], minlength=count)
    np.cumsum(bounds, out=bounds)
    positions = np.empty(len(values), np.int32 if len(values) < 1 << 31 else np.int64)
    free = bounds[:-1].copy()
    for chunk in chunks:
        order = np.argsort(values[chunk], kind="stable")
        found = values[chunk][order]
        firsts = np.flatnonzero(np.diff(found, prepend=-1))
        lengths = np.diff(firsts, append=len(found))
        within = np.arange(len(found)) - np.repeat(firsts, lengths)
        positions[free[found] + within] = order + chunk.start
        free[found[firsts]] += lengths
    return positions, bounds
