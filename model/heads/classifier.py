"""The classifier: rows of class weights, all of them or a rank's, all or a sample a step; features to logits."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from model.cosine import cosines, exact
from model.heads.rows import ClassRows, draw_uniform
from model.heads.sampling import sample_classes
from model.heads.scores import ClassScores
from model.sharding import Group, complete_gradient


class Head(ClassRows):
    """Cosines of features to class weights, then a margin. All in float32, also under autocast.

    Sampled (``sample`` < 1) and in training, a forward pass uses the classes of its labels and that share of the
    others; the buffer ``draws`` counts passes and, with ``seed``, determines the sample. Rows that are not in it
    have the gradient 0, not none: SGD goes on moving them by their momentum and shrinks them by its weight decay. The
    first fades within some ten steps, the second does not turn a row. (An et al. keep momenta of sampled rows only.)

    Sharded (``group``), every rank is given the same global features and labels, seeded alike; see ``model.sharding``.
    Its parameters are of this rank alone: keep them out of DistributedDataParallel, and reduce norms over the group.

    Source: An et al., Killing two birds with one stone: Partial FC, CVPR 2022.
    """

    draws: torch.Tensor

    def __init__(
        self, margin: nn.Module, *, features: int, classes: int, sample: float, seed: int, group: Group | None
    ) -> None:
        super().__init__(classes, group)
        self.weight = nn.Parameter(draw_uniform(classes, features, bound=self._bound(features), group=group))
        self.margin, self.sample, self.seed = margin, sample, seed
        if sample < 1.0:
            self.register_buffer("draws", torch.zeros((), dtype=torch.int64))

    def forward(self, features: torch.Tensor, labels: torch.Tensor) -> ClassScores:
        """(N, features) and (N,) int64 -> (N, K) logits of this rank's classes."""
        with torch.autocast(features.device.type, enabled=False):
            features = complete_gradient(exact(features), self.group)
            rows, columns = self._rows(labels)
            scores = ClassScores(values=self._similarities(features, rows), columns=columns, group=self.group)
            return self.margin(scores, torch.linalg.vector_norm(features, dim=1))

    def _rows(self, labels: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
        """The rows of this step, None for all; and the labels' places among them, as ``columns``."""
        columns = self.columns(labels)
        if self.sample == 1.0 or not self.training:
            return None, columns
        rows = sample_classes(labels, self.classes, self.sample, seed=self.seed, draw=int(self.draws))
        self.draws += 1
        rows = rows[(rows >= self.start) & (rows < self.stop)] - self.start
        return rows, torch.searchsorted(rows, columns).where(columns >= 0, -1)

    def _similarities(self, features: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
        return cosines(features, _chosen(self.weight, rows))

    @staticmethod
    def _bound(features: int) -> float:
        return 1.0


class LinearHead(Head):
    """Dot products with class weights, plus a bias; PyTorch's initialisation of a linear layer."""

    by_class = ("weight", "bias")

    def __init__(
        self, margin: nn.Module, *, features: int, classes: int, sample: float, seed: int, group: Group | None
    ) -> None:
        super().__init__(margin, features=features, classes=classes, sample=sample, seed=seed, group=group)
        self.bias = nn.Parameter(draw_uniform(classes, bound=self._bound(features), group=group))

    def _similarities(self, features: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
        return functional.linear(features, exact(_chosen(self.weight, rows)), exact(_chosen(self.bias, rows)))

    @staticmethod
    def _bound(features: int) -> float:
        return 1.0 / math.sqrt(features)


def _chosen(values: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
    return values if rows is None else values.index_select(0, rows)
