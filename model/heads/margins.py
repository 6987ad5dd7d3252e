"""Heads whose margin has no state."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import nn

from model.heads.classifier import HeadOptions, scale_for
from model.heads.scores import ClassScores
from model.options import OptionError, option

_BY_CLASSES = ("scale", "margin")  # of SV-Softmax; the form of the reference derives them from the number of classes


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

    The logits are ``s cos(theta + m)`` for the target, ``s cos theta`` for the others. ``form`` determines the target
    beyond pi - m, where ``cos(theta + m)`` increases with theta, and its gradient:

    - ``authors``: ``s (cos theta - m sin m)`` beyond pi - m. It keeps decreasing with theta, with a step down at
      pi - m. Gradients are the derivatives.
    - ``insightface``: ``s cos(theta + m)`` everywhere. The gradient of the target's cosine leaves the factor
      ``sin(theta + m) / sin(theta)`` out.

    Source: Deng et al., ArcFace, CVPR 2019, equation 3; the authors' MXNet code; ``arcface_torch`` of insightface.
    """

    name = "arcface"
    scale: float = option(64.0, min_open=True, help="scale s of the cosines")
    margin: float = option(0.5, max=1.5, help="margin m in radians")
    form: str = option(
        "authors",
        choices=("authors", "insightface"),
        help="beyond pi - m: linear in cos (authors), or cos(theta + m) (insightface)",
    )

    def logits(self, scores: ClassScores, norms: torch.Tensor, state: nn.Module) -> ClassScores:
        target = self._insightface(scores.target()) if self.form == "insightface" else self._authors(scores.target())
        return scores.replaced(self.scale * scores.values, self.scale * target)

    def _insightface(self, cosine: torch.Tensor) -> torch.Tensor:
        """(N,) cosines of the targets -> (N,) ``cos(theta + m)`` with the gradient of the cosine."""
        before = cosine.detach()
        return cosine + ((before.clamp(-1.0, 1.0).acos() + self.margin).cos() - before)

    def _authors(self, cosine: torch.Tensor) -> torch.Tensor:
        """(N,) cosines of the targets -> (N,) ``cos(theta + m)``, or ``cos theta - m sin m`` beyond pi - m."""
        tiny = torch.finfo(cosine.dtype).eps ** 2  # the square root has no gradient at theta = 0 and pi
        sine = (1.0 - cosine.square()).clamp_min(tiny).sqrt()
        shifted = cosine * math.cos(self.margin) - sine * math.sin(self.margin)
        beyond = cosine - self.margin * math.sin(self.margin)
        return shifted.where(cosine > math.cos(math.pi - self.margin), beyond)


class SVSoftmax(HeadOptions):
    """Additive cosine margin with more weight on support vectors (SV-AM-Softmax, 2018).

    As AM-Softmax, but a class with ``cos > cos_y - m`` has the logit ``s (t cos + t - 1)``. ``form`` ``reference`` is
    SV-Softmax of Lai & Lam: no margin, and the scale ``sqrt(2) log(classes - 1)``, which is in the buffer ``scale``.

    Source: Wang et al., Support vector guided softmax loss for face recognition, 2018: SV-AM-Softmax.
    """

    name = "svsoftmax"
    scale: float = option(30.0, min_open=True, help="scale s of the cosines")
    margin: float = option(0.35, max=1, help="margin m")
    t: float = option(1.2, min=1, help="weight of support vectors")
    form: str = option(
        "paper",
        choices=("paper", "reference"),
        help="scale and margin: these (paper), or sqrt(2) log(classes - 1) and 0 (reference)",
    )

    def check(self) -> None:
        super().check()
        declared = self.declared()
        if self.form == "reference" and any(getattr(self, name) != declared[name].default for name in _BY_CLASSES):
            raise OptionError("head svsoftmax: form reference has its own scale and margin; leave scale and margin out")

    def values(self) -> dict[str, Any]:
        left_out = _BY_CLASSES if self.form == "reference" else ()
        return {name: value for name, value in super().values().items() if name not in left_out}

    @property
    def min_classes(self) -> int:
        return 3 if self.form == "reference" else 1

    def buffers(self, classes: int) -> dict[str, torch.Tensor]:
        return {"scale": scale_for(classes)} if self.form == "reference" else {}

    def logits(self, scores: ClassScores, norms: torch.Tensor, state: nn.Module) -> ClassScores:
        scale, margin = (state.get_buffer("scale"), 0.0) if self.form == "reference" else (self.scale, self.margin)
        hard = scores.values > (scores.all_targets() - margin)[:, None]
        values = torch.where(hard, self.t * scores.values + (self.t - 1.0), scores.values)
        return scores.replaced(scale * values, scale * (scores.target() - margin))
