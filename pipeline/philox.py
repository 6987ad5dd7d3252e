"""Random numbers by position: counter-based Philox streams.

The draws of any slot are computed without drawing the slots before it. NumPy guarantees the raw stream of a bit
generator across versions, but not the methods of ``Generator``: only the raw stream is used here.

Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011.
"""

from __future__ import annotations

import numpy as np

_WORDS = 4  # 64-bit words in a Philox block
_PERMUTATION, _DRAWS = 0, 1  # streams of one (seed, epoch)


def permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """A (count,) int64 permutation of 0..count-1, the same on every machine."""
    words = np.random.Philox(key=[seed, epoch << 1 | _PERMUTATION]).random_raw(count)
    return np.argsort(words, kind="stable")


def draws(seed: int, epoch: int, slots: slice, views: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The random numbers of some global slots.

    Args:
        slots: a slice start:stop of global slots of the epoch.

    Returns:
        (slots, views) uint64 picks below 2**32, to be scaled to an identity's number of images;
        (slots, views) bool flips;
        (slots, views) uint64 chances below 2**31, for whatever else is drawn of an image.
    """
    blocks = -(-views // _WORDS)
    generator = np.random.Philox(key=[seed, epoch << 1 | _DRAWS], counter=slots.start * blocks)
    words = generator.random_raw((slots.stop - slots.start) * blocks * _WORDS)
    words = words.reshape(slots.stop - slots.start, blocks * _WORDS)[:, :views]
    return words >> np.uint64(32), (words & np.uint64(1)).astype(bool), words << np.uint64(32) >> np.uint64(33)
