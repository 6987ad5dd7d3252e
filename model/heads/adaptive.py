"""Heads whose margin has state. Updates that are not finite are skipped, so that checkpoints stay finite."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import nn

from model.heads.classifier import HeadOptions, scale_for
from model.heads.scores import ClassScores
from model.options import option
from model.sharding import log_sum_exp

_EPSILON = 1e-3  # AdaFace: smallest angle, and added to the deviation, as in the authors' code
_NORMS = (1e-3, 100.0)  # AdaFace: range of the norms in the authors' code


def _update(buffer: torch.Tensor, value: torch.Tensor, valid: torch.Tensor) -> None:
    """Sets a buffer, shape (), to ``value`` where ``valid``, a bool of shape (); does not synchronise with the device."""
    buffer.copy_(torch.where(valid, value, buffer))


class ASoftmax(HeadOptions):
    """Multiplicative angular margin (SphereFace, 2017), annealed.

    The logits are ``|x| (lambda cos + psi) / (1 + lambda)`` for the target, ``|x| cos`` for the others, with
    psi(theta) = (-1)^k cos(m theta) - 2k for theta in [k pi / m, (k + 1) pi / m]. lambda decreases from ``base`` to
    ``least``: ``max(least, base / (1 + decay * iteration))``. The buffer ``iteration`` is the number of the step, from 1.

    Source: Liu et al., SphereFace, CVPR 2017, equation 7; the schedule is that of the authors' code.
    """

    name = "asoftmax"
    margin: int = option(4, min=1, help="factor m of the angle")
    base: float = option(1000.0, help="weight lambda of the plain cosine before it decays")
    decay: float = option(0.12, help="decay of lambda per step")
    least: float = option(5.0, help="final lambda")

    def buffers(self, classes: int) -> dict[str, torch.Tensor]:
        return {"iteration": torch.ones((), dtype=torch.int64)}

    def logits(self, scores: ClassScores, norms: torch.Tensor, state: nn.Module) -> ClassScores:
        cosine, iteration = scores.target(), state.get_buffer("iteration")
        weight = (self.base / (1.0 + self.decay * iteration.to(cosine.dtype))).clamp_min(self.least)
        if state.training:
            iteration += 1
        target = (weight * cosine + self._psi(cosine)) / (1.0 + weight)
        return scores.replaced(norms[:, None] * scores.values, norms * target)

    def _psi(self, cosine: torch.Tensor) -> torch.Tensor:
        """(N,) cosines -> (N,) psi, by Chebyshev polynomials. The arc cosine has no gradient at 0 and pi, so it only determines k."""
        previous, current = torch.ones_like(cosine), cosine
        for _ in range(self.margin - 1):
            previous, current = current, 2.0 * cosine * current - previous
        theta = cosine.detach().clamp(-1.0, 1.0).acos()
        k = (theta * self.margin / math.pi).floor().clamp_max(self.margin - 1)
        return (1.0 - 2.0 * (k % 2)) * current - 2.0 * k


class AdaFace(HeadOptions):
    """Margin by image quality, estimated from the norm of the feature (AdaFace, 2022).

    The logits are ``s (cos(theta - m z) - m - m z)`` for the target, ``s cos`` for the others. z estimates the quality
    from the feature's norm: ``h (norm - mean) / deviation``, clipped to -1..1, without gradient. Mean and standard
    deviation are exponential averages over batches including the current one, in the buffers ``mean`` and
    ``deviation``. They start at 20 and 100 as in the authors' code. A batch of one image updates the mean only.

    ``form`` ``authors`` also limits norms to 0.001..100 and all cosines to 0.999, as the authors' code does.

    Source: Kim et al., AdaFace, CVPR 2022, equations 11 to 16.
    """

    name = "adaface"
    scale: float = option(64.0, min_open=True, help="scale s of the cosines")
    margin: float = option(0.4, max=1, help="margin m")
    h: float = option(
        0.333, min_open=True, help="concentration of the quality: quality 1 is 1/h deviations of the norm"
    )
    momentum: float = option(0.01, max=1, help="weight of a batch in the averages of the norm")
    form: str = option(
        "paper",
        choices=("paper", "authors"),
        help="limits: none (paper), or norms to 0.001..100 and cosines to 0.999 (authors)",
    )

    def buffers(self, classes: int) -> dict[str, torch.Tensor]:
        return {"mean": torch.tensor(20.0), "deviation": torch.tensor(100.0)}

    def logits(self, scores: ClassScores, norms: torch.Tensor, state: nn.Module) -> ClassScores:
        norms, bound = norms.detach(), math.cos(_EPSILON)
        if self.form == "authors":
            norms, bound = norms.clamp(*_NORMS), 1.0 - _EPSILON
            scores = dataclasses.replace(scores, values=scores.values.clamp(-bound, bound))
        quality = self._quality(norms, state)
        theta = scores.target().clamp(-bound, bound).acos()
        shifted = (theta - self.margin * quality).clamp(_EPSILON, math.pi - _EPSILON).cos()
        target = shifted - self.margin - self.margin * quality
        return scores.replaced(self.scale * scores.values, self.scale * target)

    def _quality(self, norms: torch.Tensor, state: nn.Module) -> torch.Tensor:
        """Image quality: (N,) norms -> (N,) in -1..1. In training mode the averages are updated first."""
        mean, deviation = state.get_buffer("mean"), state.get_buffer("deviation")
        if state.training:
            averages = [(mean, norms.mean())]
            if len(norms) > 1:
                averages.append((deviation, norms.std()))
            for buffer, value in averages:
                _update(buffer, buffer.lerp(value, self.momentum), value.isfinite())
        return (self.h * (norms - mean) / (deviation + _EPSILON)).clamp(-1.0, 1.0)


class AdaCos(HeadOptions):
    """Adaptive scale, no margin (AdaCos, 2019).

    The logits are the cosines times the buffer ``scale``, which starts at ``sqrt(2) log(classes - 1)``. If ``dynamic``,
    it is updated to ``log(B) / cos(min(pi / 4, theta))`` before the logits of each training step; otherwise it stays. B
    is the mean over images of the sum of ``exp(scale cos)`` over all classes but the target, or over the sampled ones;
    theta is the (lower) median angle to the target class. Updates that are not positive are skipped.

    With ``form`` ``reference``, the dynamic scale starts at ``4 / pi log(classes - 1)``, as that of Lai & Lam.

    Source: Zhang et al., AdaCos, CVPR 2019, equations 13 and 15 to 17.
    """

    name = "adacos"
    dynamic: bool = option(True, help="false keeps the initial scale, set by the number of classes")
    form: str = option(
        "paper",
        choices=("paper", "reference"),
        help="factor of log(classes - 1) at first: sqrt(2) (paper), 4/pi if dynamic (reference)",
    )

    @property
    def min_classes(self) -> int:
        return 3

    def buffers(self, classes: int) -> dict[str, torch.Tensor]:
        by_reference = self.dynamic and self.form == "reference"
        return {"scale": scale_for(classes, 4.0 / math.pi if by_reference else math.sqrt(2.0))}

    def logits(self, scores: ClassScores, norms: torch.Tensor, state: nn.Module) -> ClassScores:
        scale = state.get_buffer("scale")
        if self.dynamic and state.training:
            self._adapt(scores, scale)
        return dataclasses.replace(scores, values=scale.clone() * scores.values)

    @torch.no_grad()
    def _adapt(self, scores: ClassScores, scale: torch.Tensor) -> None:
        """Updates ``scale``, shape (), in place from the cosines of a batch."""
        theta = scores.all_targets().clamp(-1.0, 1.0).acos().median()
        excluded = scores.values.new_full(scores.columns.shape, -torch.inf)
        others = scores.replaced(scale * scores.values, excluded)
        log_sums = torch.stack(log_sum_exp(others.values, scores.group)).sum(0)
        log_mean = log_sums.logsumexp(0) - math.log(len(log_sums))
        adapted = log_mean / theta.clamp_max(math.pi / 4.0).cos()
        _update(scale, adapted, adapted.isfinite() & (adapted > 0.0))
