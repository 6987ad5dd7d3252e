"""Classification heads: embeddings and labels to logits."""

from __future__ import annotations

import torch
from torch import nn

from model.cosine import cosines


class AMSoftmax(nn.Module):
    """Additive-margin softmax: logits ``s (cos - m)`` for the target, ``s cos`` for the others.

    Source: Wang et al., Additive margin softmax for face verification, 2018 (CosFace, CVPR 2018).
    """

    def __init__(self, features: int, classes: int, *, scale: float = 30.0, margin: float = 0.35) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, features).uniform_(-1, 1))
        self.scale, self.margin = scale, margin

    def forward(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """(N, features) and (N,) int64 -> (N, classes) float32 logits."""
        target = nn.functional.one_hot(labels, len(self.weight))
        return self.scale * (cosines(features, self.weight) - self.margin * target)
