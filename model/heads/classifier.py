"""Classifiers: features to logits with one weight row per class, optionally sharded over ranks and sampled."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from model.cosine import cosines, full_precision
from model.heads.rows import ClassRows, draw_uniform
from model.heads.sampling import sample_classes
from model.heads.scores import ClassScores
from model.sharding import Group, all_reduce_gradient


class Head(ClassRows):
    """Cosines of features and class weights, then a margin. Computes in float32, also under autocast.

    If sampled (``sample`` < 1), a forward pass in training mode uses the classes of its labels and that fraction of the
    others. The buffer ``draws`` counts these passes; it determines the sample together with ``seed``. Rows outside the
    sample have a gradient of 0, not None, so SGD still applies their momentum and weight decay. The momentum fades
    within about ten steps, and the decay does not change a row's direction. (An et al. keep the momenta of sampled rows
    only.)

    If sharded (``group``), every rank must receive the same global features and labels; see ``model.sharding``. The
    parameters belong to this rank alone: exclude them from DistributedDataParallel, and reduce norms over the group.

    Args:
        margin: module from cosines and feature norms to logits; see ``model.heads.margins``.
        features: dimension of an embedding.
        classes: number of classes of all ranks.
        sample: fraction of the classes outside the batch that take part in a step.
        seed: of the samples.
        group: ranks that share the classes; None for a single process.

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
        """Logits of this rank's classes: (N, features) float and (N,) int64 labels -> (N, K)."""
        with torch.autocast(features.device.type, enabled=False):
            features = all_reduce_gradient(full_precision(features), self.group)
            rows, columns = self._rows(labels)
            scores = ClassScores(values=self._similarities(features, rows), columns=columns, group=self.group)
            return self.margin(scores, torch.linalg.vector_norm(features, dim=1))

    def _rows(self, labels: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Rows of this step, None for all rows, and the positions of ``labels`` among them."""
        columns = self.columns(labels)
        if self.sample == 1.0 or not self.training:
            return None, columns
        rows = sample_classes(labels, self.classes, self.sample, seed=self.seed, draw=int(self.draws))
        self.draws += 1
        rows = rows[(rows >= self.start) & (rows < self.stop)] - self.start
        return rows, torch.searchsorted(rows, columns).where(columns >= 0, -1)

    def _similarities(self, features: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
        return cosines(features, _select(self.weight, rows))

    @staticmethod
    def _bound(features: int) -> float:
        return 1.0


class LinearHead(Head):
    """Dot products with class weights plus a bias, initialised like ``nn.Linear``. Arguments as ``Head``."""

    by_class = ("weight", "bias")

    def __init__(
        self, margin: nn.Module, *, features: int, classes: int, sample: float, seed: int, group: Group | None
    ) -> None:
        super().__init__(margin, features=features, classes=classes, sample=sample, seed=seed, group=group)
        self.bias = nn.Parameter(draw_uniform(classes, bound=self._bound(features), group=group))

    def _similarities(self, features: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
        return functional.linear(
            features, full_precision(_select(self.weight, rows)), full_precision(_select(self.bias, rows))
        )

    @staticmethod
    def _bound(features: int) -> float:
        return 1.0 / math.sqrt(features)


def _select(values: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
    return values if rows is None else values.index_select(0, rows)
