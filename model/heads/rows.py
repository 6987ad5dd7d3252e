"""Modules with a row a class, of which a rank holds a contiguous block."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from model.sharding import Group, gather_rows, shard_bounds
from shards.errors import LrfrError

_DRAWN_AT_ONCE = 1 << 24  # numbers; a rank never holds the whole matrix


class HeadError(LrfrError):
    """A saved head that does not fit. One line."""


def draw_uniform(rows: int, *shape: int, bound: float, group: Group | None) -> torch.Tensor:
    """This rank's block of a (rows, *shape) matrix, uniform in -bound..bound.

    Drawn from PyTorch's default generator, the whole of it: ranks seeded alike hold blocks of one matrix, the same
    for any number of ranks, and their generators stay alike.
    """
    start, stop = shard_bounds(rows, group)
    step = max(1, _DRAWN_AT_ONCE // max(1, torch.Size(shape).numel()))
    kept = [torch.empty(0, *shape)]
    for first in range(0, rows, step):
        drawn = torch.empty(min(step, rows - first), *shape).uniform_(-bound, bound)
        if first < stop and first + len(drawn) > start:
            kept.append(drawn[max(start - first, 0) : stop - first].clone())
    return torch.cat(kept)


class ClassRows(nn.Module):
    """Base of what has tensors with a row a class; it knows the rank's block, and the state of the whole.

    Attributes:
        classes: of all ranks.  start, stop: the block of this rank.
        by_class: names in the state dict of the tensors with a row a class.
    """

    by_class: tuple[str, ...] = ("weight",)

    def __init__(self, classes: int, group: Group | None) -> None:
        super().__init__()
        self.classes, self.group = classes, group
        self.start, self.stop = shard_bounds(classes, group)

    def columns(self, labels: torch.Tensor) -> torch.Tensor:
        """(N,) labels -> their rows in this block, -1 for those of another rank, past the end for labels of no class."""
        inside = (labels >= self.start) & (labels < self.stop)
        absent = (labels < 0) | (labels >= self.classes)
        return (labels - self.start).where(inside, -1).masked_fill(absent, self.stop - self.start)

    def full_state(self) -> dict[str, torch.Tensor]:
        """The state dict that a single process would have. A collective if sharded, and then on the CPU: all ranks call it."""
        state = dict(self.state_dict())
        if self.group is not None:
            for name, value in state.items():
                whole = name in self.by_class
                state[name] = gather_rows(value, self.classes, self.group) if whole else value.cpu().clone()
        return state

    def load_full_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Takes this rank's part of what ``full_state`` gave, with however many ranks.

        Raises:
            HeadError: it is of another head, or of another number of classes or features.
        """
        own = self.state_dict()
        if set(state) != set(own):
            raise HeadError(
                f"the saved head has {', '.join(sorted(state))}, expected {', '.join(sorted(own))}; use the head and options it was saved with"
            )
        for name, value in own.items():
            expected = (self.classes, *value.shape[1:]) if name in self.by_class else tuple(value.shape)
            if tuple(state[name].shape) != expected:
                raise HeadError(
                    f"the saved head's {name} is {tuple(state[name].shape)}, expected {expected}; use the identities it was saved with"
                )
        self.load_state_dict(
            {name: value[self.start : self.stop] if name in self.by_class else value for name, value in state.items()}
        )
