"""Margins without state: cosines to logits.

A margin maps the cosines (``ClassScores``) and the (N,) norms of the features to logits (``ClassScores``). Gradients flow
through this rank's cosines only; targets gathered from other ranks have no gradient.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import nn

from model.heads.scores import ClassScores


class Plain(nn.Module):
    """No margin: returns the scores."""

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

    For theta > pi - m, where ``cos(theta + m)`` would increase, the target is ``s (cos theta - m sin m)`` as in the
    authors' code. It keeps decreasing with theta, with a step down at pi - m.

    Source: Deng et al., ArcFace, CVPR 2019, equation 3.
    """

    def __init__(self, *, scale: float, margin: float) -> None:
        super().__init__()
        self.scale, self.margin = scale, margin

    def forward(self, scores: ClassScores, norms: torch.Tensor) -> ClassScores:
        cosine = scores.target()
        tiny = torch.finfo(cosine.dtype).eps ** 2  # the square root has no gradient at theta = 0 and pi
        sine = (1.0 - cosine.square()).clamp_min(tiny).sqrt()
        shifted = cosine * math.cos(self.margin) - sine * math.sin(self.margin)
        beyond = cosine - self.margin * math.sin(self.margin)
        target = shifted.where(cosine > math.cos(math.pi - self.margin), beyond)
        return scores.replaced(self.scale * scores.values, self.scale * target)


class SVSoftmax(nn.Module):
    """AM-Softmax with more weight on support vectors: a class with ``cos > cos_y - m`` has ``s (t cos + t - 1)``.

    Source: Wang et al., Support vector guided softmax loss for face recognition, 2018: SV-AM-Softmax.
    """

    def __init__(self, *, scale: float, margin: float, t: float) -> None:
        super().__init__()
        self.scale, self.margin, self.t = scale, margin, t

    def forward(self, scores: ClassScores, norms: torch.Tensor) -> ClassScores:
        hard = scores.values > (scores.all_targets() - self.margin)[:, None]
        values = torch.where(hard, self.t * scores.values + (self.t - 1.0), scores.values)
        return scores.replaced(self.scale * values, self.scale * (scores.target() - self.margin))
