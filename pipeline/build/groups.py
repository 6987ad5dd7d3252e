"""Groups: a few images of an identity that stay together in a shard, for readers that go from shard to shard."""

from __future__ import annotations

import numpy as np

from pipeline.philox import permutation

_ORDER, _GROUP_ORDER = 0, 1  # streams of the seed


def grouped_shards(labels: np.ndarray, *, group: int, shards: int, seed: int) -> list[np.ndarray]:
    """Spreads images over shards at random, but keeps ``group`` images of an identity, or a few more, together.

    The images of an identity, in random order, are cut into groups of equal size, but for one image: an identity with n
    images has ``n // group`` groups of ``group`` to ``2 * group - 1`` images, or one of all if it has fewer.

    Args:
        labels: (N,) the identity of each image, from 0.
        shards: number of shards; they are as equal as whole groups allow, and fewer if a group fills several.

    Returns:
        For each shard the positions of its images in ``labels``; a group stands together.
    """
    order, starts = _grouped(labels, group, seed)
    shard = starts * shards // max(len(order), 1)
    return np.split(order, starts[1:][np.diff(shard) > 0])


def _grouped(labels: np.ndarray, group: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The images in an order in which groups follow each other at random.

    Returns:
        (N,) positions in ``labels``; (G,) where each group begins in that order.
    """
    order = permutation(seed, _ORDER, len(labels))
    order = order[np.argsort(labels[order], kind="stable")]  # by identity, at random within it
    counts = np.bincount(labels)
    counts = counts[counts > 0]
    groups = np.maximum(counts // group, 1)
    number = np.arange(groups.sum()) - np.repeat(np.cumsum(groups) - groups, groups)  # of each group in its identity
    of_identity, siblings = np.repeat(counts, groups), np.repeat(groups, groups)
    sizes = of_identity * (number + 1) // siblings - of_identity * number // siblings
    chosen = permutation(seed, _GROUP_ORDER, len(sizes))
    before = (np.cumsum(sizes) - sizes)[chosen]
    sizes = sizes[chosen]
    starts = np.cumsum(sizes) - sizes
    return order[np.arange(len(order)) + np.repeat(before - starts, sizes)], starts
