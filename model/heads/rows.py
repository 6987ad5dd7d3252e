"""Modules with one row per class, sharded over ranks in contiguous blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.distributed import ProcessGroup
from torch.nn import functional

from model.errors import CheckpointError
from model.sharding import Group, gather_rows, shard_bounds
from shards.arguments import check_argument, check_whole

INITIAL_ROWS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "reference": lambda rows: rows.uniform_(-1.0, 1.0),
    "adaface": lambda rows: functional.normalize(rows.uniform_(-1.0, 1.0)),
    "insightface": lambda rows: rows.normal_(0.0, 0.01),
}
"""Initial class rows of other projects: (K, features) of any values -> the same shape.

The length of a row does not change its cosines, but the angle by which an update turns it. At 512 features it is 13
(``reference``, of Lai & Lam), 1 (``adaface``) or 0.23 (``insightface``). With the same gradient of its cosine, a step of
SGD turns a row of length 13 by 170 times less than one of length 1.
"""
CHUNK_VALUES = 1 << 24  # drawn at a time, so that no rank holds the whole matrix


def draw_rows(
    rows: int, *shape: int, draw: Callable[[torch.Tensor], torch.Tensor], group: Group | None
) -> torch.Tensor:
    """Draws this rank's block of a (rows, *shape) matrix.

    Every rank draws the whole matrix from PyTorch's default generator and keeps its block. If all ranks have the same
    seed, the matrix does not depend on their number, and their generators stay in step.

    Args:
        draw: takes (K, *shape) float32 rows that are not initialised, and returns drawn ones.

    Returns:
        (rows of this rank, *shape) float32.
    """
    start, stop = shard_bounds(rows, group)
    step = max(1, CHUNK_VALUES // max(1, torch.Size(shape).numel()))
    kept = [torch.empty(0, *shape)]
    for first in range(0, rows, step):
        chunk = draw(torch.empty(min(step, rows - first), *shape))
        if first < stop and first + len(chunk) > start:
            kept.append(chunk[max(start - first, 0) : stop - first].clone())
    return torch.cat(kept)


def check_batch(features: torch.Tensor, labels: torch.Tensor) -> None:
    """Raises: TypeError: not (N, D) floats and (N,) int64."""
    good = isinstance(features, torch.Tensor) and features.is_floating_point() and features.ndim == 2
    check_argument(good, "features", features, "a Tensor of floats and shape (N, D)")
    good = isinstance(labels, torch.Tensor) and labels.dtype == torch.int64
    good = good and labels.shape == features.shape[:1]
    check_argument(good, "labels", labels, f"a Tensor of int64 and shape ({len(features)},)")


def check_group(group: Group | None) -> None:
    """Raises: TypeError: neither a group of ranks nor None."""
    check_argument(isinstance(group, ProcessGroup | None), "group", group, "a process group of PyTorch, or None")


class ClassRows(nn.Module):
    """Base of modules whose tensors have one row per class, of which each rank has a block.

    Attributes:
        by_class: keys in the state dict of the tensors with one row per class.
        classes: number of classes of all ranks.
        start, stop: first class of this rank, and one past its last.
    """

    by_class: tuple[str, ...]

    def __init__(self, classes: int, group: Group | None) -> None:
        super().__init__()
        classes = check_whole("classes", classes, 0)
        check_group(group)
        self.classes, self.group = classes, group
        self.start, self.stop = shard_bounds(classes, group)

    def check_batch(self, features: torch.Tensor, labels: torch.Tensor) -> None:
        """Raises: TypeError: see ``check_batch``, or features of another length than the rows."""
        check_batch(features, labels)
        length = getattr(self, self.by_class[0]).shape[1]
        expected = f"a Tensor of floats and shape (N, {length})"
        check_argument(features.shape[1] == length, "features", features, expected)

    def columns(self, labels: torch.Tensor) -> torch.Tensor:
        """(N,) rows of ``labels`` (N,) in this block: -1 if another rank has the class, its length if no rank has it."""
        inside = (labels >= self.start) & (labels < self.stop)
        absent = (labels < 0) | (labels >= self.classes)
        return (labels - self.start).where(inside, -1).masked_fill(absent, self.stop - self.start)

    def full_state(self, *, keep: bool = True) -> dict[str, torch.Tensor]:
        """The state dict of all ranks together, equal to that of a single process.

        If sharded, this is a collective that all ranks call, and the tensors are on the CPU.

        Args:
            keep: this rank needs the rows of the others; otherwise tensors with a row per class have none.
        """
        state = dict(self.state_dict())
        if self.group is not None:
            for name, value in state.items():
                sharded = name in self.by_class
                state[name] = (
                    gather_rows(value, self.classes, self.group, keep=keep) if sharded else value.cpu().clone()
                )
        return state

    def load_full_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Loads this rank's part of a ``full_state``, which may come from another number of ranks.

        Raises:
            CheckpointError: another head, or another number of classes or features.
        """
        current = self.state_dict()
        if set(state) != set(current):
            raise CheckpointError(
                f"the saved head has {', '.join(sorted(state))}, expected {', '.join(sorted(current))};"
                " use the head and options it was saved with"
            )
        for name, value in current.items():
            expected = (self.classes, *value.shape[1:]) if name in self.by_class else tuple(value.shape)
            if tuple(state[name].shape) != expected:
                raise CheckpointError(
                    f"the saved head's {name} is {tuple(state[name].shape)}, expected {expected};"
                    " use the identities it was saved with"
                )
        self.load_state_dict(
            {name: value[self.start : self.stop] if name in self.by_class else value for name, value in state.items()}
        )
