"""Logits of this rank's classes."""

from __future__ import annotations

import dataclasses

import torch

from model.sharding import Group, all_reduce_sum


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassScores:
    """Cosines or logits of a batch, for the classes of this rank or the sampled ones among them.

    Attributes:
        values: (N, K) float32 or float64; a row per image, a column per class.
        columns: (N,) int64, column of the image's target class; -1 if another rank has it.
        group: the ranks that share the classes; None for a single process.
    """

    values: torch.Tensor
    columns: torch.Tensor
    group: Group | None = None

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.columns.shape != self.values.shape[:1]:
            raise ValueError(
                f"shapes of values {tuple(self.values.shape)} and columns {tuple(self.columns.shape)} differ"
            )

    def target(self) -> torch.Tensor:
        """(N,) scores of the target classes; 0 if another rank has the class."""
        if not self.values.shape[1]:
            return self.values.sum(1)  # zeros with a graph: every rank must take part in the backward pass
        found = self.values.gather(1, self.columns.clamp_min(0)[:, None])[:, 0]
        return found if self.group is None else found.where(self.columns >= 0, 0.0)

    def all_targets(self) -> torch.Tensor:
        """(N,) scores of the target classes, gathered from all ranks; without gradient."""
        return all_reduce_sum(self.target().detach(), self.group)

    def replaced(self, values: torch.Tensor, target: torch.Tensor) -> ClassScores:
        """A copy with new scores.

        Args:
            values: (N, K) scores of all columns.
            target: (N,) scores of the target classes, which overwrite their columns.
        """
        if not values.shape[1]:
            return dataclasses.replace(self, values=values)
        columns = self.columns.clamp_min(0)[:, None]
        if self.group is not None:
            target = target.where(self.columns >= 0, values.gather(1, columns)[:, 0])
        return dataclasses.replace(self, values=values.scatter(1, columns, target[:, None]))
