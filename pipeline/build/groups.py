"""Groups: a few images of an identity that stay together in a shard, for readers that go from shard to shard."""

from __future__ import annotations

import numpy as np

from pipeline.counting_sort import CHUNK, counting_sort
from pipeline.philox import permutation

_ORDER, _GROUP_ORDER = 0, 1  # streams of the seed


def grouped_shards(labels: np.ndarray, rows: np.ndarray, *, group: int, shards: int, seed: int) -> list[np.ndarray]:
    """Spreads images over shards at random, but keeps ``group`` images of an identity, or a few more, together.

    The images of an identity, in random order, are cut into groups whose sizes differ by at most one: an identity with n
    images has ``n // group`` groups of ``group`` to ``2 * group - 1`` images, or one of all if it has fewer.

    Args:
        labels: (N,) the identity of each image, from 0.
        rows: (n,) int32, the images to spread.
        shards: number of shards; they are as equal as whole groups allow, and fewer if a group fills several.

    Returns:
        For each shard its rows; a group stands together.
    """
    group = max(min(group, len(rows)), 1)  # counts may be of a type that cannot hold a larger number
    order, starts = _grouped(labels, rows, group, seed)
    shard = starts * shards // max(len(order), 1)
    return np.split(order, starts[1:][np.diff(shard) > 0])


def _grouped(labels: np.ndarray, rows: np.ndarray, group: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows in an order in which groups follow each other at random; memory is scarce here.

    Returns:
        (n,) int32 rows; (G,) int32 or int64, where each group begins among them.
    """
    order = rows[permutation(seed, _ORDER, len(rows), np.int32)]
    order, bounds = counting_sort(labels, int(labels.max(initial=-1)) + 1, order)  # by identity, at random within it
    sizes = _sizes(np.diff(bounds).astype(np.int32), group)
    kind = np.int32 if len(rows) < 1 << 31 else np.int64
    chosen = permutation(seed, _GROUP_ORDER, len(sizes), np.int32)
    before = (np.cumsum(sizes, dtype=kind) - sizes)[chosen]
    sizes = sizes[chosen]
    starts = np.cumsum(sizes, dtype=kind) - sizes
    found = np.empty_like(order)
    for start in range(0, len(sizes), CHUNK):
        part = slice(start, start + CHUNK)
        begin, end = starts[start], starts[start] + sizes[part].sum(dtype=np.int64)
        found[begin:end] = order[np.arange(begin, end) + np.repeat(before[part] - starts[part], sizes[part])]
    return found, starts


def _sizes(counts: np.ndarray, group: int) -> np.ndarray:
    """(G,) int32 sizes of the groups of identities with ``counts`` images, one identity after the other."""
    counts = counts[counts > 0]
    groups = np.maximum(counts // group, 1)
    first = np.repeat(np.cumsum(groups) - groups, groups)
    number = np.arange(len(first)) - first  # of each group in its identity
    return np.repeat(counts // groups, groups) + (number < np.repeat(counts % groups, groups))
