"""Which identities, images and flips: a pure function of (seed, epoch, slot)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from pipeline.philox import draws, permutation
from shards.errors import LrfrError

SAMPLER_VERSION = 1


class SamplerError(LrfrError):
    """A batch that cannot be drawn, or a state that belongs to other data. One line."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoaderState:
    """Where a run is in its stream of batches; nothing in it depends on the number of ranks.

    Attributes:
        epoch, step: the next batch to be consumed is number ``step`` of ``epoch``.
        global_batch: identities in a batch over all ranks.
        views: images an identity.
        index_digest: names the exact index that the batches are drawn from.
    """

    seed: int
    epoch: int = 0
    step: int = 0
    global_batch: int
    views: int
    index_digest: str
    sampler_version: int = SAMPLER_VERSION

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 1 << 32:
            raise SamplerError(f"seed {self.seed} is out of range; expected 0 to {(1 << 32) - 1}")
        if self.global_batch < 1 or self.views < 1 or self.epoch < 0 or self.step < 0:
            raise SamplerError(f"a batch needs at least one identity and one view, epoch and step count from 0: {self}")

    def to_dict(self) -> dict[str, Any]:
        """The state as JSON-able fields."""
        return dataclasses.asdict(self)

    def next(self, steps_per_epoch: int) -> LoaderState:
        """The state after one more batch."""
        last = self.step + 1 >= steps_per_epoch
        return dataclasses.replace(self, epoch=self.epoch + last, step=0 if last else self.step + 1)

    def resumed(self, saved: dict[str, Any]) -> LoaderState:
        """The position of ``saved``, taken over where everything that determines the batches agrees.

        Raises:
            SamplerError: it was saved for other data, another seed, batch size, number of views or sampler.
        """
        mine = self.to_dict()
        for name, value in mine.items():
            if name == "index_digest" and saved.get(name) != value:
                raise SamplerError(
                    "loader state: it belongs to other shards; resume on those that the run started with"
                )
            if name not in ("epoch", "step") and saved.get(name) != value:
                raise SamplerError(
                    f"loader state: {name} was {saved.get(name)}, now it is {value}; resume with what the run started with"
                )
        return dataclasses.replace(self, epoch=int(saved["epoch"]), step=int(saved["step"]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draw:
    """One rank's share of one global batch: ``classes`` (b,), positions in the list of identities; the rest (views, b)."""

    classes: np.ndarray
    rows: np.ndarray
    flips: np.ndarray
    chances: np.ndarray


class IdentitySampler:
    """Draws batches of distinct identities, an epoch being one pass over all of them, the last partial batch dropped."""

    def __init__(
        self, first: np.ndarray, count: np.ndarray, state: LoaderState, *, rank: int = 0, world_size: int = 1
    ) -> None:
        """
        Args:
            first, count: (I,) first index row and number of rows of each identity.
            state: gives seed, global batch and views; its position is not read.
            rank, world_size: which slice of each global batch this process draws.

        Raises:
            SamplerError: more identities in a batch than there are, or a batch that the ranks cannot share evenly.
        """
        if state.global_batch > len(first):
            raise SamplerError(
                f"a batch of {state.global_batch} distinct identities needs as many; there are {len(first)}: lower --batch-size"
            )
        if state.global_batch % world_size:
            raise SamplerError(
                f"a batch of {state.global_batch} identities cannot be shared by {world_size} processes; choose a multiple"
            )
        self._first, self._count, self._state, self.world_size = first, count, state, world_size
        share = state.global_batch // world_size
        self._mine = slice(rank * share, (rank + 1) * share)
        self._order: tuple[int, np.ndarray] | None = None
        self.steps_per_epoch = len(first) // state.global_batch

    def draw(self, epoch: int, step: int) -> Draw:
        """The draw of batch ``step`` of ``epoch``."""
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, permutation(self._state.seed, epoch, len(self._first)))
        start = step * self._state.global_batch
        slots = slice(start + self._mine.start, start + self._mine.stop)
        classes = self._order[1][slots]
        picks, flips, chances = draws(self._state.seed, epoch, slots, self._state.views)
        within = (picks * self._count[classes, None].astype(np.uint64)) >> np.uint64(32)
        rows = self._first[classes, None] + within.astype(np.int64)
        return Draw(classes=classes, rows=rows.T, flips=flips.T, chances=chances.T)
