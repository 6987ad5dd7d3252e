"""The training step as the paper's text describes it: one forward pass per resolution, in float32."""

from __future__ import annotations

import torch
from torch.nn import functional

from benchmarks.speed import VGGFACE2_IDENTITIES
from model.backbones import EMBEDDING_SIZE, build_backbone
from model.losses.functional import hardest_triplet


class PlainStep:
    """AM-Softmax and hardest triplet, contiguous (N, C, H, W) images, SGD.

    Source: Lai & Lam, ICIP 2021.
    """

    def __init__(self, backbone: str, device: str, classes: int = VGGFACE2_IDENTITIES) -> None:
        self._backbone = build_backbone(backbone).to(device).train()
        self._weight = torch.nn.Parameter(torch.empty(classes, EMBEDDING_SIZE, device=device).uniform_(-1, 1))
        parameters = [*self._backbone.parameters(), self._weight]
        self._optimizer = torch.optim.SGD(parameters, lr=1e-4, momentum=0.9, weight_decay=5e-4)

    def __call__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        """Updates the weights on (V, b, S, S, 3) uint8 images and (b,) int64 labels."""
        inputs = [((view.permute(0, 3, 1, 2) / 255.0 - 0.5) / 0.5).contiguous() for view in images.unbind()]
        views = [self._backbone(view) for view in inputs]
        margin = 0.35 * functional.one_hot(labels, len(self._weight))
        rows = functional.normalize(self._weight)
        logits = [30 * (functional.normalize(view) @ rows.T - margin) for view in views]
        losses = [functional.cross_entropy(view, labels) for view in logits]
        loss = torch.stack(losses).mean() + hardest_triplet(torch.cat(views), labels.repeat(len(views)))
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
