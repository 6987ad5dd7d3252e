"""Counter-based random numbers: Philox streams that can start at any position.

Only the raw stream of the bit generator is used: unlike the methods of ``Generator``, it is the same in all versions of
NumPy.

Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

BLOCK_WORDS = 4  # 64-bit words in a Philox block
PERMUTATION_STREAM, DRAW_STREAM = 0, 1  # independent streams of each (seed, epoch)
DEGRADATION_NUMBERS = 32  # of an image: whole blocks, of two numbers a word
SORTED_NUMBERS = 1 << 22  # sorted at a time; all of 42 million would take 1 GB
BLOCK_NUMBERS = 1 << 17  # compared at a time, in the cache of a core
_SEED_BITS = 32


def permutation(seed: int, epoch: int, count: int, kind: type[np.integer] = np.int64) -> np.ndarray:
    """(count,) random permutation of 0..count-1 of type ``kind``, the same on every machine."""
    key = [seed, epoch << 1 | PERMUTATION_STREAM]
    if count <= SORTED_NUMBERS:
        return np.argsort(np.random.Philox(key=key).random_raw(count), kind="stable").astype(kind, copy=False)
    order, done = np.empty(count, kind), 0
    parts = -(-count // SORTED_NUMBERS)
    for part in range(parts):
        numbers, words = _part_of_words(key, count, part, parts)
        order[done : done + len(numbers)] = numbers[np.argsort(words, kind="stable")]
        done += len(numbers)
    return order


def _part_of_words(key: list[int], count: int, part: int, parts: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions and values of those of the first ``count`` words of a stream that lie in one of ``parts`` equal ranges."""
    generator = np.random.Philox(key=key)
    positions, values = [], []
    for start in range(0, count, BLOCK_NUMBERS):
        words = generator.random_raw(min(BLOCK_NUMBERS, count - start))
        inside = np.flatnonzero((words >> np.uint64(32)) * np.uint64(parts) >> np.uint64(32) == part)
        positions.append(inside + start)
        values.append(words[inside])
    return np.concatenate(positions), np.concatenate(values)


def window_stream(seed: int, epoch: int, window: int) -> Callable[[int], np.ndarray]:
    """Returns so many uint64 random numbers of one window of an epoch at each call.

    The stream is that of ``permutation``, from positions on that no permutation reaches.
    """
    key = [seed, epoch << 1 | PERMUTATION_STREAM]
    return np.random.Philox(key=key, counter=(window + 1) << 64).random_raw


def draws(seed: int, epoch: int, slots: slice, views: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random numbers of the slots ``slots.start`` to ``slots.stop`` of an epoch. A slot is one identity of one batch.

    Returns:
        (slots, views) uint64 below 2**32, which choose an image of the identity;
        (slots, views) bool, whether to flip the image;
        (slots, views) uint64 below 2**31, which choose the size to degrade it to.
    """
    blocks = -(-views // BLOCK_WORDS)
    generator = np.random.Philox(key=[seed, epoch << 1 | DRAW_STREAM], counter=slots.start * blocks)
    words = generator.random_raw((slots.stop - slots.start) * blocks * BLOCK_WORDS)
    words = words.reshape(slots.stop - slots.start, blocks * BLOCK_WORDS)[:, :views]
    return words >> np.uint64(32), (words & np.uint64(1)).astype(bool), words << np.uint64(32) >> np.uint64(33)


def degradation_numbers(seed: int, epoch: int, slots: slice, view: int) -> np.ndarray:
    """Random numbers of the images of a view, in the slots ``slots.start`` to ``slots.stop`` of an epoch.

    The stream is one of its own: seeds have 32 bits, and the number of the view is above them in the key.

    Returns:
        (slots, ``DEGRADATION_NUMBERS``) float64, 0 to below 1.
    """
    blocks = DEGRADATION_NUMBERS // (2 * BLOCK_WORDS)
    count = (slots.stop - slots.start) * DEGRADATION_NUMBERS
    numbers = uniforms([seed | (view + 1) << _SEED_BITS, epoch], slots.start * blocks, count)
    return numbers.reshape(-1, DEGRADATION_NUMBERS)


def uniforms(key: list[int], block: int, count: int) -> np.ndarray:
    """(count,) float64 random numbers, 0 to below 1, from a block of a stream on; multiples of 2**-32."""
    words = np.random.Philox(key=key, counter=block).random_raw(-(-count // 2))
    return words.astype("<u8").view("<u4")[:count] / 2.0**32
