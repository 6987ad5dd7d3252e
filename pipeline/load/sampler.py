"""Which identities, images, flips and sizes are in a batch: a pure function of seed, epoch and step."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.philox import degradation_numbers, draws, permutation
from shards.arguments import check_argument, check_whole
from shards.errors import LrfrError

SAMPLER_VERSION = 1
MAX_EPOCHS = 1 << 62  # they are part of a 64-bit key


class SamplerError(LrfrError):
    """The batch size does not fit the data, or a saved state belongs to another stream."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoaderState:
    """Position in the stream of batches. Saved in checkpoints; independent of the number of ranks.

    Attributes:
        epoch: of the next batch to consume, counted from 0.
        step: its number in the epoch, counted from 0.
        global_batch: identities per batch over all ranks.
        views: images per identity.
        index_digest: digest of the shard index.
        window: shards from which a batch of the sequential order is drawn; 0: of random order.
    """

    seed: int
    epoch: int = 0
    step: int = 0
    global_batch: int
    views: int
    index_digest: str
    sampler_version: int = SAMPLER_VERSION
    window: int = 0

    def __post_init__(self) -> None:
        for name in ("seed", "epoch", "step", "global_batch", "views", "window"):
            object.__setattr__(self, name, check_whole(name, getattr(self, name)))
        if not 0 <= self.seed < 1 << 32:
            raise SamplerError(f"seed {self.seed} is out of range; expected 0 to {(1 << 32) - 1}")
        if (
            self.global_batch < 1
            or self.views < 1
            or self.window < 0
            or not 0 <= self.epoch < MAX_EPOCHS
            or self.step < 0
        ):
            raise SamplerError(f"expected at least one identity and one view, and epoch and step from 0: {self}")

    def to_dict(self) -> dict[str, Any]:
        """The fields, for JSON; without the window of random order, which older versions do not know."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value or name != "window"}

    def next(self, steps_per_epoch: int) -> LoaderState:
        """The position one batch later."""
        is_last = self.step + 1 >= steps_per_epoch
        return dataclasses.replace(self, epoch=self.epoch + is_last, step=0 if is_last else self.step + 1)

    def resumed(self, saved: dict[str, Any]) -> LoaderState:
        """This state at the position of ``saved``.

        Raises:
            TypeError: ``saved`` is not a mapping.
            SamplerError: ``saved`` differs in a field that determines the batches: data, seed, batch size, number of
                views, order or sampler version; or ``saved`` is not such a state.
        """
        check_argument(isinstance(saved, Mapping), "saved", saved, "the dict that to_dict() returns")
        saved = {"window": 0, **saved}  # states of random order have none
        for name, value in dataclasses.asdict(self).items():
            found = saved.get(name)
            if isinstance(found, bool) or not isinstance(found, type(value)):
                raise SamplerError(
                    f"loader state: {name} is missing or of the wrong type; resume from another checkpoint"
                )
            if name in ("epoch", "step") or found == value:
                continue
            if name == "index_digest":
                raise SamplerError("loader state: belongs to other shards; resume with the shards of the original run")
            change = f"order was {_order(found)}, is now {_order(value)}"
            change = change if name == "window" else f"{name} was {found}, is now {value}"
            raise SamplerError(f"loader state: {change}; resume with the settings of the original run")
        return dataclasses.replace(self, epoch=saved["epoch"], step=saved["step"])


def _order(window: int) -> str:
    return f"sequential with window {window}" if window else "random"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draw:
    """One rank's share of a global batch."""

    classes: np.ndarray  # (b,) int64, positions in the list of identities
    rows: np.ndarray  # (views, b) int64, index rows of the images
    flips: np.ndarray  # (views, b) bool, whether to flip each image left to right
    size_draws: np.ndarray  # (views, b) uint64 below 2**31, which choose the size of each image


class Sampler(abc.ABC):
    """Draws one rank's share of batches of distinct identities. ``draw`` may be called for any step, by any thread."""

    def __init__(self, identities: int, state: LoaderState, *, rank: int, world_size: int) -> None:
        """
        Args:
            identities: number of them in the data.
            state: seed, global batch size and number of views; its position is ignored.
            rank, world_size: select the slice of each global batch that this process draws.

        Raises:
            SamplerError: a batch has more identities than the data, or is not divisible by ``world_size``.
        """
        if state.global_batch > identities:
            raise SamplerError(
                f"batch size {state.global_batch} is larger than the number of identities, {identities}; lower --batch-size"
            )
        if state.global_batch % world_size:
            raise SamplerError(
                f"batch size {state.global_batch} is not divisible by the number of processes, {world_size}; change --batch-size"
            )
        self._state, self.world_size = state, world_size
        share = state.global_batch // world_size
        self._offset, self._share = rank * share, share

    @abc.abstractmethod
    def draw(self, epoch: int, step: int) -> Draw:
        """Draws batch ``step`` of ``epoch``."""

    @abc.abstractmethod
    def steps(self, epoch: int, beyond: int) -> int:
        """Number of batches in ``epoch``; if it is above ``beyond``, perhaps less, but also above it."""

    def after(self, state: LoaderState) -> LoaderState:
        """The position one batch after ``state``."""
        return state.next(self.steps(state.epoch, beyond=state.step + 1))

    def check(self, state: LoaderState) -> None:
        """Raises: SamplerError: the step of a resumed state is beyond its epoch."""
        if state.step >= (steps := self.steps(state.epoch, beyond=state.step)):
            raise SamplerError(
                f"loader state: step {state.step} of an epoch of {steps}; resume from another checkpoint"
            )

    def degradation(self, epoch: int, step: int, view: int) -> np.ndarray:
        """(b, ``DEGRADATION_NUMBERS``) random numbers for the images of one view of a batch."""
        return degradation_numbers(self._state.seed, epoch, self._slots(step), view)

    def _slots(self, step: int) -> slice:
        """The places of this process's share of batch ``step`` in the epoch."""
        start = step * self._state.global_batch + self._offset
        return slice(start, start + self._share)


class IdentitySampler(Sampler):
    """Draws from the whole set. An epoch visits each identity once and drops the last partial batch."""

    def __init__(
        self, first: np.ndarray, count: np.ndarray, state: LoaderState, *, rank: int = 0, world_size: int = 1
    ) -> None:
        """
        Args:
            first: (I,) int64, first index row of each identity.
            count: (I,) int64, number of rows of each identity.
            state, rank, world_size: see ``Sampler``.

        Raises:
            SamplerError: see ``Sampler``.
        """
        super().__init__(len(first), state, rank=rank, world_size=world_size)
        self._first, self._count = first, count
        self._order: tuple[int, np.ndarray] | None = None  # epoch and its permutation of the identities
        self.steps_per_epoch = len(first) // state.global_batch

    def steps(self, epoch: int, beyond: int) -> int:
        """Number of batches in ``epoch``."""
        return self.steps_per_epoch

    def draw(self, epoch: int, step: int) -> Draw:
        """Draws batch ``step`` of ``epoch``."""
        order = self._order  # read once: another thread may draw from another epoch
        if order is None or order[0] != epoch:
            order = self._order = (epoch, permutation(self._state.seed, epoch, len(self._first)))
        slots = self._slots(step)
        classes = order[1][slots]
        picks, flips, size_draws = draws(self._state.seed, epoch, slots, self._state.views)
        offsets = (picks * self._count[classes, None].astype(np.uint64)) >> np.uint64(32)
        rows = self._first[classes, None] + offsets.astype(np.int64)
        return Draw(classes=classes, rows=rows.T, flips=flips.T, size_draws=size_draws.T)
