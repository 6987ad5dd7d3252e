"""The training step as an ordinary PyTorch user writes what the paper describes: the yardstick of ``bench speed step``."""

from __future__ import annotations

import torch
from torch.nn import functional

from model.backbones import EMBEDDING_SIZE, build_backbone
from model.losses.functional import hardest_triplet


class PlainStep:
    """One forward pass a resolution, float32, contiguous (N, C, H, W) images, SGD; AM-Softmax and hardest triplet.

    Source: Lai & Lam, ICIP 2021.
    """

    def __init__(self, name: str, *, classes: int, device: str) -> None:
        self._backbone = build_backbone(name).to(device).train()
        self._weight = torch.nn.Parameter(torch.empty(classes, EMBEDDING_SIZE, device=device).uniform_(-1, 1))
        parameters = [*self._backbone.parameters(), self._weight]
        self._optimizer = torch.optim.SGD(parameters, lr=1e-4, momentum=0.9, weight_decay=5e-4)

    def __call__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        """(V, b, S, S, 3) uint8 and (b,) int64: one update."""
        views = [
            self._backbone(((view.permute(0, 3, 1, 2) / 255.0 - 0.5) / 0.5).contiguous()) for view in images.unbind()
        ]
        margin = 0.35 * functional.one_hot(labels, len(self._weight))
        rows = functional.normalize(self._weight)
        losses = [
            functional.cross_entropy(30 * (functional.normalize(view) @ rows.T - margin), labels) for view in views
        ]
        loss = torch.stack(losses).mean() + hardest_triplet(torch.cat(views), labels.repeat(len(views)))
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
