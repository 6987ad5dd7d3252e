"""Center loss: a term added to a head's, with a centre a class that follows the class's features."""

from __future__ import annotations

from typing import Any

import torch

from model.cosine import exact
from model.heads.rows import ClassRows
from model.options import Option, checked
from model.sharding import Group, complete_gradient, total

CENTER_OPTIONS = {
    "weight": Option(default=0.003, about="factor of the term in the loss (lambda)"),
    "alpha": Option(default=0.5, most=1.0, about="share of the way that a centre goes to its features in a step"),
}


class CenterLoss(ClassRows):
    """``weight / 2 |x - c|^2`` for each image, c the centre of its class. Features are not normalised.

    The centres are a buffer, not parameters: no optimiser, momentum or weight decay moves them. After the distances are
    taken, a forward pass in training mode moves the centre of each class in the batch by
    ``alpha * sum(x - c) / (1 + n)``, n its images. Centres start at 0. Features that are not finite move none.
    Sharded like ``Head``: each rank holds and moves the centres of its block.

    Source: Wen et al., A discriminative feature learning approach for deep face recognition, ECCV 2016, equations 2-4.
    """

    by_class = ("centers",)
    centers: torch.Tensor

    def __init__(self, *, features: int, classes: int, weight: float, alpha: float, group: Group | None) -> None:
        super().__init__(classes, group)
        self.weight, self.alpha = weight, alpha
        self.register_buffer("centers", torch.zeros(self.stop - self.start, features))

    def forward(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """(N, features) and (N,) int64 -> (N,) terms. The paper sums them over the batch; a mean is as good."""
        with torch.autocast(features.device.type, enabled=False):
            columns = self.columns(labels)
            own = (columns >= 0).nonzero()[:, 0]  # waits for the device
            away = complete_gradient(exact(features), self.group)[own] - self.centers[columns[own]]
            if self.training:
                self._follow(away.detach(), columns[own])
            terms = away.new_zeros(len(features)).index_add(0, own, 0.5 * self.weight * away.square().sum(1))
            return total(terms, self.group)

    def _follow(self, away: torch.Tensor, rows: torch.Tensor) -> None:
        moved, place, counts = torch.unique(rows, return_inverse=True, return_counts=True)
        sums = self.centers.new_zeros(len(moved), self.centers.shape[1]).index_add_(
            0, place, away.to(self.centers.dtype)
        )
        steps = self.alpha * sums / (1.0 + counts)[:, None]
        self.centers.index_add_(0, moved, steps.where(steps.isfinite(), 0.0))


def build_center_loss(*, features: int, classes: int, group: Group | None = None, **options: Any) -> CenterLoss:
    """A center loss with ``CENTER_OPTIONS``. Raises: OptionError: an unknown option, or one out of range."""
    return CenterLoss(
        features=features, classes=classes, group=group, **checked("center loss", CENTER_OPTIONS, options)
    )
