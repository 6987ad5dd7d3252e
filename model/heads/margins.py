"""Margins without memory: cosines of a batch to logits.

Each is called with the cosines (``ClassScores``) and the (N,) norms of the features, and returns logits (``ClassScores``).
The gradient flows through the cosines only; what a rule learns of other ranks' targets decides, and has no gradient.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import nn

from model.heads.scores import ClassScores


class Plain(nn.Module):
    """No margin: the scores are the logits."""

    def forward(self, scores: ClassScores, norms: torch.Tensor) -> ClassScores:
        return scores


class AMSoftmax(nn.Module):
    """Additive margin: ``s (cos - m)`` for the target, ``s cos`` for the others.

    Source: Wang et al., Additive margin softmax for face verification, 2018; the same as CosFace, CVPR 2018.
    """

    def __init__(self, *, scale: float, margin: float) -> None:
        super().__init__()
        self.scale, self.margin = scale, margin

    def forward(self, scores: ClassScores, norms: torch.Tensor) -> ClassScores:
        moved = scores.replaced(scores.values, scores.target() - self.margin)
        return dataclasses.replace(moved, values=self.scale * moved.values)


class ArcFace(nn.Module):
    """Additive angular margin: ``s cos(theta + m)`` for the target, ``s cos theta`` for the others.

    Beyond theta = pi - m, where ``cos(theta + m)`` would rise again, the target is ``s (cos theta - m sin m)``: the
    rule of the authors' released code. It goes on falling, with a step down at the border.

    Source: Deng et al., ArcFace, CVPR 2019, equation 3.
    """

    def __init__(self, *, scale: float, margin: float) -> None:
        super().__init__()
        self.scale, self.margin = scale, margin

    def forward(self, scores: ClassScores, norms: torch.Tensor) -> ClassScores:
        cosine = scores.target()
        tiny = torch.finfo(cosine.dtype).eps ** 2  # at 0 and pi the root has no slope
        sine = (1.0 - cosine.square()).clamp_min(tiny).sqrt()
        turned = cosine * math.cos(self.margin) - sine * math.sin(self.margin)
        beyond = cosine - self.margin * math.sin(self.margin)
        target = turned.where(cosine > math.cos(math.pi - self.margin), beyond)
        return scores.replaced(self.scale * scores.values, self.scale * target)


class SVSoftmax(nn.Module):
    """Support vectors count more: AM-Softmax, where a class that beats ``cos_y - m`` has ``s (t cos + t - 1)``.

    Source: Wang et al., Support vector guided softmax loss for face recognition, 2018: SV-AM-Softmax.
    """

    def __init__(self, *, scale: float, margin: float, t: float) -> None:
        super().__init__()
        self.scale, self.margin, self.t = scale, margin, t

    def forward(self, scores: ClassScores, norms: torch.Tensor) -> ClassScores:
        hard = scores.values > (scores.all_targets() - self.margin)[:, None]
        values = torch.where(hard, self.t * scores.values + (self.t - 1.0), scores.values)
        return scores.replaced(self.scale * values, self.scale * (scores.target() - self.margin))
