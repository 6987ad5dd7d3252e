"""Center loss: distance of each feature to a moving center of its class."""

from __future__ import annotations

import math

import torch

from model.cosine import full_precision
from model.heads.rows import ClassRows, draw_rows
from model.sharding import Group, all_reduce_gradient, all_reduce_sum
from shards.arguments import check_argument, check_number, check_whole


class CenterLoss(ClassRows):
    """``weight / 2 |x - c|^2`` for each image, with c the center of its class. Features are not normalised.

    Centers are a buffer, which no optimizer, momentum or weight decay changes. In training mode, the center of each
    class in the batch moves by ``alpha * sum(x - c) / (1 + n)``, with n its images in the batch: after the distances are
    computed (``paper``), or before, as by Lai & Lam (``reference``). Features that are not finite do not move a center.
    If sharded, each rank has the centers of its block of classes, like ``Head``.

    Centers start at 0 (``paper``), or uniform in -1..1, divided by the square root of ``features`` (``reference``).

    Args:
        features: dimension of an embedding.
        classes: number of classes of all ranks.
        weight: lambda of the paper.
        alpha: fraction of the way that a center moves, 0..1.
        form: ``paper`` or ``reference``.
        group: ranks that share the classes; None for a single process.

    Source: Wen et al., A discriminative feature learning approach for deep face recognition, ECCV 2016, equations 2-4.
    """

    by_class = ("centers",)
    centers: torch.Tensor

    def __init__(
        self, *, features: int, classes: int, weight: float, alpha: float, form: str = "paper", group: Group | None
    ) -> None:
        super().__init__(classes, group)
        features = check_whole("features", features, 1)
        for name, value in (("weight", weight), ("alpha", alpha)):
            check_number(name, value)
        check_argument(form in ("paper", "reference"), "form", form, "paper or reference")
        self.weight, self.alpha, self.form = weight, alpha, form
        centers = torch.zeros(self.stop - self.start, features)
        if form == "reference":
            bound = 1.0 / math.sqrt(features)
            centers = draw_rows(classes, features, draw=lambda rows: rows.uniform_(-bound, bound), group=group)
        self.register_buffer("centers", centers)

    def forward(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Loss of each image: (N, features) float and (N,) int64 labels -> (N,). The paper sums over the batch.

        Raises:
            TypeError: an argument has another type or shape.
        """
        self.check_batch(features, labels)
        with torch.autocast(features.device.type, enabled=False):
            columns = self.columns(labels)
            local = (columns >= 0).nonzero()[:, 0]  # images whose class this rank has; synchronises with the device
            rows = columns[local]
            images = all_reduce_gradient(full_precision(features), self.group)[local]
            offsets = images - self.centers[rows]
            if self.training:
                self._move_centers(offsets.detach(), rows)
                if self.form == "reference":
                    offsets = images - self.centers[rows]
            losses = offsets.new_zeros(len(features)).index_add(0, local, 0.5 * self.weight * offsets.square().sum(1))
            return all_reduce_sum(losses, self.group)

    def _move_centers(self, offsets: torch.Tensor, rows: torch.Tensor) -> None:
        """Moves the centers ``rows`` (n,) int64 of n images towards them, whose ``offsets`` are (n, features)."""
        moved, index, counts = torch.unique(rows, return_inverse=True, return_counts=True)
        sums = self.centers.new_zeros(len(moved), self.centers.shape[1])
        sums.index_add_(0, index, offsets.to(self.centers.dtype))
        steps = self.alpha * sums / (1.0 + counts)[:, None]
        self.centers.index_add_(0, moved, steps.where(steps.isfinite(), 0.0))
