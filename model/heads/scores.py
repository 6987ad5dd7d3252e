"""What a classifier says of a batch: cosines or logits of the classes that this rank has at hand."""

from __future__ import annotations

import dataclasses

import torch

from model.sharding import Group, total


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassScores:
    """One row an image, one column a class of this rank (of this step's sample, if classes are sampled).

    Attributes:
        values: (N, K) float32 (float64 where features and weights are).
        columns: (N,) int64, the column of the image's own class, -1 where it lies on another rank.
        group: the ranks that hold the other columns; None: there are none.
    """

    values: torch.Tensor
    columns: torch.Tensor
    group: Group | None = None

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.columns.shape != self.values.shape[:1]:
            raise ValueError(f"values {tuple(self.values.shape)} and columns {tuple(self.columns.shape)} do not fit")

    def target(self) -> torch.Tensor:
        """(N,) scores of the own classes, 0 for one on another rank."""
        if not self.values.shape[1]:
            return self.values.sum(1)  # zeros that keep the graph: every rank must take part in the backward pass
        found = self.values.gather(1, self.columns.clamp_min(0)[:, None])[:, 0]
        return found if self.group is None else found.where(self.columns >= 0, 0.0)

    def all_targets(self) -> torch.Tensor:
        """(N,) scores of the own classes, wherever they lie; without gradient."""
        return total(self.target().detach(), self.group)

    def replaced(self, values: torch.Tensor, target: torch.Tensor) -> ClassScores:
        """``values`` (N, K) in place of these, with ``target`` (N,) in the columns of the own classes."""
        if not values.shape[1]:
            return dataclasses.replace(self, values=values)
        columns = self.columns.clamp_min(0)[:, None]
        if self.group is not None:
            target = target.where(self.columns >= 0, values.gather(1, columns)[:, 0])
        return dataclasses.replace(self, values=values.scatter(1, columns, target[:, None]))
