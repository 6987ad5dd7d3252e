"""Heads whose margin has no state."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import nn

from model.heads.classifier import HeadOptions
from model.heads.scores import ClassScores
from model.options import option


class Softmax(HeadOptions):
    """Dot products and a bias, without normalisation."""

    name = "softmax"
    cosine = False

    def logits(self, scores: ClassScores, norms: torch.Tensor, state: nn.Module) -> ClassScores:
        return scores


class AMSoftmax(HeadOptions):
    """Additive cosine margin (AM-Softmax, CosFace, 2018).

    The logits are ``s (cos - m)`` for the target, ``s cos`` for the others.

    Source: Wang et al., Additive margin softmax for face verification, 2018; the same as CosFace, CVPR 2018.
    """

    name = "amsoftmax"
    scale: float = option(30.0, min_open=True, help="scale s of the cosines")
    margin: float = option(0.35, max=1, help="margin m")

    def logits(self, scores: ClassScores, norms: torch.Tensor, state: nn.Module) -> ClassScores:
        moved = scores.replaced(scores.values, scores.target() - self.margin)
        return dataclasses.replace(moved, values=self.scale * moved.values)


class ArcFace(HeadOptions):
    """Additive angular margin (ArcFace, 2019).

    The logits are ``s cos(theta + m)`` for the target, ``s cos theta`` for the others. For theta > pi - m, where
    ``cos(theta + m)`` would increase, the target is ``s (cos theta - m sin m)`` as in the authors' code. It keeps
    decreasing with theta, with a step down at pi - m.

    Source: Deng et al., ArcFace, CVPR 2019, equation 3.
    """

    name = "arcface"
    scale: float = option(64.0, min_open=True, help="scale s of the cosines")
    margin: float = option(0.5, max=1.5, help="margin m in radians")

    def logits(self, scores: ClassScores, norms: torch.Tensor, state: nn.Module) -> ClassScores:
        cosine = scores.target()
        tiny = torch.finfo(cosine.dtype).eps ** 2  # the square root has no gradient at theta = 0 and pi
        sine = (1.0 - cosine.square()).clamp_min(tiny).sqrt()
        shifted = cosine * math.cos(self.margin) - sine * math.sin(self.margin)
        beyond = cosine - self.margin * math.sin(self.margin)
        target = shifted.where(cosine > math.cos(math.pi - self.margin), beyond)
        return scores.replaced(self.scale * scores.values, self.scale * target)


class SVSoftmax(HeadOptions):
    """Additive cosine margin with more weight on support vectors (SV-AM-Softmax, 2018).

    As AM-Softmax, but a class with ``cos > cos_y - m`` has the logit ``s (t cos + t - 1)``.

    Source: Wang et al., Support vector guided softmax loss for face recognition, 2018: SV-AM-Softmax.
    """

    name = "svsoftmax"
    scale: float = option(30.0, min_open=True, help="scale s of the cosines")
    margin: float = option(0.35, max=1, help="margin m")
    t: float = option(1.2, min=1, help="weight of support vectors")

    def logits(self, scores: ClassScores, norms: torch.Tensor, state: nn.Module) -> ClassScores:
        hard = scores.values > (scores.all_targets() - self.margin)[:, None]
        values = torch.where(hard, self.t * scores.values + (self.t - 1.0), scores.values)
        return scores.replaced(self.scale * values, self.scale * (scores.target() - self.margin))
