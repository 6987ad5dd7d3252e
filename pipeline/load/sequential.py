"""Batches from a few shards at a time, for sets that are read from front to back."""

from __future__ import annotations

import bisect
import dataclasses
import functools
import threading
from collections.abc import Callable

import numpy as np

from pipeline.counting_sort import counting_sort
from pipeline.load.sampler import Draw, IdentitySampler, LoaderState, Sampler, SamplerError
from pipeline.philox import draws, permutation, window_stream
from shards.index import ShardIndex
from shards.messages import counted

MAX_ALONE = 0.1  # share of the images without another one of their identity in the shard
EXTRA_ROUNDS = 4  # of exchanges, beyond those in which a slot can reach any batch
KEPT = 4  # windows and epochs: the loader is in one, and what fetches shards ahead may be in others


@dataclasses.dataclass(frozen=True, kw_only=True)
class Groups:
    """The images of a window, sorted by shard and identity. A group is what one shard has of one identity.

    Attributes:
        rows: (R,) index rows.
        starts, sizes: (G,) where each group begins in ``rows``, and its number of images.
        labels: (G,) the identity of each group.
        places: (G,) the place of its shard in the window.
    """

    rows: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray
    places: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
    """The batches of a window, one after another.

    Attributes:
        labels: (T * B,) the identity of each slot.
        rows: (T * B, V) index rows of its images.
    """

    labels: np.ndarray
    rows: np.ndarray


class SequentialSampler(Sampler):
    """Draws from one window of shards after another.

    An epoch is a random order of the shards, in windows of ``state.window`` or fewer. Each group of a window gives as
    many slots as its images need, one image for each view, and no image twice before all have been drawn. The slots are
    dealt to batches of distinct identities at random; those that fill no batch are left out, other ones in each epoch.
    A batch's slots are sorted by shard, so that the slice of a rank touches few. Memory: 4 bytes for each image of the
    set, and ``KEPT`` windows of rows.
    """

    def __init__(self, index: ShardIndex, state: LoaderState, *, rank: int = 0, world_size: int = 1) -> None:
        """
        Args:
            state, rank, world_size: see ``Sampler``.

        Raises:
            SamplerError: see ``Sampler``; or the images of an identity are not together; or a window is too small for a
                batch.
        """
        super().__init__(len(index.labels), state, rank=rank, world_size=world_size)
        self._index = index
        self._rows, self._bounds = counting_sort(index.shard, index.manifest.shards)
        self._epoch = functools.lru_cache(KEPT)(self._opened)
        self._window = functools.lru_cache(KEPT)(self._dealt)
        self._lock = threading.Lock()
        self._check_groups()

    def steps(self, epoch: int, beyond: int) -> int:
        """Number of batches in the windows up to that of batch ``beyond``, or of the epoch, if it has no such one."""
        return self._ends(epoch, beyond)[-1]

    def draw(self, epoch: int, step: int) -> Draw:
        """Draws batch ``step`` of ``epoch``."""
        ends = self._ends(epoch, beyond=step)
        window = bisect.bisect_right(ends, step)
        dealt = self._window(epoch, window)
        start = (step - (ends[window - 1] if window else 0)) * self._state.global_batch + self._offset
        chosen = slice(start, start + self._share)
        _, flips, size_draws = draws(self._state.seed, epoch, self._slots(step), self._state.views)
        classes = np.searchsorted(self._index.labels, dealt.labels[chosen])
        return Draw(classes=classes, rows=dealt.rows[chosen].T, flips=flips.T, size_draws=size_draws.T)

    def _ends(self, epoch: int, beyond: int) -> list[int]:
        """Number of batches up to the end of each window, as far as that of batch ``beyond``."""
        shards, ends = self._epoch(epoch)
        with self._lock:
            while len(ends) < len(shards) and (not ends or ends[-1] <= beyond):
                groups = self._groups(shards[len(ends)])
                ends.append((ends[-1] if ends else 0) + self._batches(groups.labels, self._slots_of(groups)))
        return ends

    def _opened(self, epoch: int) -> tuple[list[np.ndarray], list[int]]:
        """The shards of each window of an epoch; and a list for the steps up to the end of each, filled as needed."""
        order = permutation(self._state.seed, epoch, len(self._bounds) - 1)
        return np.array_split(order, -(-len(order) // self._state.window)), []

    def _groups(self, shards: np.ndarray) -> Groups:
        """The groups of a window."""
        parts = [self._rows[self._bounds[shard] : self._bounds[shard + 1]] for shard in shards.tolist()]
        rows = np.concatenate(parts).astype(np.int64)
        place = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        label = self._index.label[rows].astype(np.int64)
        starts = np.flatnonzero(np.diff(place * (int(self._index.labels[-1]) + 1) + label, prepend=-1))
        sizes = np.diff(starts, append=len(rows))
        return Groups(rows=rows, starts=starts, sizes=sizes, labels=label[starts], places=place[starts])

    def _slots_of(self, groups: Groups) -> np.ndarray:
        """(G,) slots of each group: as few as have a view for each image."""
        return -(-groups.sizes // self._state.views)

    def _batches(self, labels: np.ndarray, slots: np.ndarray) -> int:
        """The largest number of batches of distinct identities that (G,) groups with so many slots fill."""
        batch = self._state.global_batch
        if len(labels) == 0:  # all images of its shards were rejected
            return 0
        of_identity = np.bincount(np.unique(labels, return_inverse=True)[1], weights=slots).astype(np.int64)
        with_more = len(of_identity) - np.cumsum(np.bincount(of_identity))[:-1]  # than 0, 1, ... slots
        filled = np.cumsum(with_more)  # slots that 1, 2, ... batches can take, one of an identity each
        if filled[-1] >= len(filled) * batch:  # identities do not limit them
            return int(filled[-1]) // batch
        return int(np.count_nonzero(filled >= np.arange(1, len(filled) + 1) * batch))

    def _dealt(self, epoch: int, window: int) -> Window:
        """Deals the slots of a window to batches, and images to the slots."""
        groups = self._groups(self._epoch(epoch)[0][window])
        slots = self._slots_of(groups)
        group = np.repeat(np.arange(len(slots)), slots)
        random = window_stream(self._state.seed, epoch, window)
        batches = self._batches(groups.labels, slots)
        slot, batch = deal(groups.labels[group], batches, batches * self._state.global_batch, random)
        order = np.lexsort((random(len(slot)), groups.places[group[slot]], batch))
        slot, chosen = slot[order], group[slot[order]]
        number = slot - (np.cumsum(slots) - slots)[chosen]  # among the slots of its group
        place = number[:, None] * self._state.views + np.arange(self._state.views)
        within = np.repeat(np.arange(len(slots)), groups.sizes)
        shuffled = groups.rows[_shuffled_within(within, random)]
        rows = shuffled[groups.starts[chosen, None] + place % groups.sizes[chosen, None]]
        return Window(labels=groups.labels[chosen], rows=rows)

    def _check_groups(self) -> None:
        """Raises: SamplerError: identities are scattered over the shards, or too few for a batch; looks at one window."""
        groups = next(groups for groups in map(self._groups, self._epoch(0)[0]) if len(groups.rows))
        classes = np.searchsorted(self._index.labels, groups.labels)
        alone = np.count_nonzero((groups.sizes == 1) & (self._index.count[classes] > 1))
        if self._state.views > 1 and alone > MAX_ALONE * len(groups.rows):
            raise SamplerError(
                f"{alone / len(groups.rows):.0%} of the images are the only one of their identity in their shard, so that all"
                " views would be of one photograph; build the shards with --group 4, or leave out --order sequential"
            )
        if (identities := len(np.unique(classes))) < self._state.global_batch:
            raise SamplerError(
                f"a window of {counted(self._state.window, 'shard')} has {counted(identities, 'identity')}, fewer than the"
                f" batch size {self._state.global_batch}; raise --window, or lower --batch-size"
            )


def deal(
    labels: np.ndarray, batches: int, count: int, random: Callable[[int], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Deals slots to batches of distinct identities, at random among all ways to do so.

    At first the slots of an identity are neighbours in a row, which is dealt as cards are: no identity is twice in a
    batch, since it gets no more slots than there are batches. Then pairs of batches exchange identities that only one of
    them has, until every slot can be anywhere.

    Source: Carstens et al., Curveball: a new generation of sampling algorithms for graphs with fixed degree sequence,
    2016 (their global trades).

    Args:
        labels: (N,) the identity of each slot.
        count: slots to deal, a multiple of ``batches`` for which there are enough distinct identities.
        random: returns so many uint64 random numbers.

    Returns:
        (count,) slots; (count,) the batch of each.
    """
    names, identity = np.unique(labels, return_inverse=True)
    slot = np.lexsort((random(len(labels)), random(len(names))[identity]))
    first = np.flatnonzero(np.diff(identity[slot], prepend=-1))
    rank = np.arange(len(slot)) - np.repeat(first, np.diff(first, append=len(slot)))  # among the slots of its identity
    slot = slot[rank < batches][:count]
    batch, identity = np.arange(len(slot)) % max(batches, 1), identity[slot]
    for _ in range(batches.bit_length() + EXTRA_ROUNDS if batches > 1 else 0):
        pair = (np.argsort(np.argsort(random(batches), kind="stable")) // 2)[batch]
        key = pair * len(names) + identity
        order = np.argsort(key, kind="stable")
        changes = np.diff(key[order], prepend=-1, append=-1) != 0
        order = order[changes[:-1] & changes[1:]]
        batch[order] = batch[order[_shuffled_within(pair[order], random)]]
    return slot, batch


def _shuffled_within(part: np.ndarray, random: Callable[[int], np.ndarray]) -> np.ndarray:
    """(N,) positions, at random within each part; ``part`` is sorted, from 0."""
    bits = int(part[-1]).bit_length() if len(part) else 0
    keys = random(len(part))
    if bits:  # a single sort takes half of the time of lexsort
        keys = part.astype(np.uint64) << np.uint64(64 - bits) | keys >> np.uint64(bits)
    return np.argsort(keys, kind="stable")


def sampler_of(index: ShardIndex, state: LoaderState, *, rank: int, world_size: int) -> Sampler:
    """The sampler of a stream. Raises: SamplerError: it does not fit the data or the ranks."""
    if state.window:
        return SequentialSampler(index, state, rank=rank, world_size=world_size)
    return IdentitySampler(index.first, index.count, state, rank=rank, world_size=world_size)
