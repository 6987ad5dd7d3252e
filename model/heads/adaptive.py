"""Margins with a memory, kept in buffers: a resumed run goes on from them exactly.

They move in the forward pass, in training mode only, as the statistics of a batch normalisation do: one forward pass is
one step. Every rank sees the same batch, so the buffers are the same on all of them. A batch with figures that are
not finite moves no buffer: a checkpoint written after such a loss must not hold them.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import nn

from model.heads.scores import ClassScores
from model.sharding import log_sum_exp


def _move(buffer: torch.Tensor, value: torch.Tensor, valid: torch.Tensor) -> None:
    buffer.copy_(torch.where(valid, value, buffer))


class ASoftmax(nn.Module):
    """Multiplicative angular margin: ``|x| (lambda cos + psi) / (1 + lambda)`` for the target, ``|x| cos`` for the others.

    psi(theta) = (-1)^k cos(m theta) - 2k for theta in [k pi / m, (k + 1) pi / m]. lambda falls from ``base`` to
    ``least``: ``max(least, base / (1 + decay * iteration))``, iterations counted in the buffer ``iteration``.

    Source: Liu et al., SphereFace, CVPR 2017, equation 7; the schedule of its released settings.
    """

    iteration: torch.Tensor

    def __init__(self, *, margin: int, base: float, decay: float, least: float) -> None:
        super().__init__()
        self.margin, self.base, self.decay, self.least = margin, base, decay, least
        self.register_buffer("iteration", torch.zeros((), dtype=torch.int64))

    def forward(self, scores: ClassScores, norms: torch.Tensor) -> ClassScores:
        cosine = scores.target()
        weight = (self.base / (1.0 + self.decay * self.iteration.to(cosine.dtype))).clamp_min(self.least)
        if self.training:
            self.iteration += 1
        target = (weight * cosine + self._psi(cosine)) / (1.0 + weight)
        return scores.replaced(norms[:, None] * scores.values, norms * target)

    def _psi(self, cosine: torch.Tensor) -> torch.Tensor:
        """By Chebyshev polynomials: the arc cosine, which has no slope at 0 and pi, only counts k."""
        before, power = torch.ones_like(cosine), cosine
        for _ in range(self.margin - 1):
            before, power = power, 2.0 * cosine * power - before
        theta = cosine.detach().clamp(-1.0, 1.0).acos()
        k = (theta * self.margin / math.pi).floor().clamp_max(self.margin - 1)
        return (1.0 - 2.0 * (k % 2)) * power - 2.0 * k


class AdaFace(nn.Module):
    """A margin by image quality: ``s (cos(theta - m z) - m - m z)`` for the target, ``s cos`` for the others.

    z is the feature's norm, less its mean and by its deviation over ``h``, within -1 and 1, without gradient; mean
    and deviation are exponential averages over batches, this one included, in the buffers ``mean`` and ``deviation``.
    They start at 20 and 100 as in the released code. A single image moves the mean only.

    Source: Kim et al., AdaFace, CVPR 2022, equations 11 to 16.
    """

    mean: torch.Tensor
    deviation: torch.Tensor
    _EPSILON = 1e-3  # of the released code: least angle, and least deviation

    def __init__(self, *, scale: float, margin: float, h: float, momentum: float) -> None:
        super().__init__()
        self.scale, self.margin, self.h, self.momentum = scale, margin, h, momentum
        self.register_buffer("mean", torch.tensor(20.0))
        self.register_buffer("deviation", torch.tensor(100.0))

    def forward(self, scores: ClassScores, norms: torch.Tensor) -> ClassScores:
        quality = self._quality(norms.detach())
        bound = math.cos(self._EPSILON)
        theta = scores.target().clamp(-bound, bound).acos()
        turned = (theta - self.margin * quality).clamp(self._EPSILON, math.pi - self._EPSILON).cos()
        target = turned - self.margin - self.margin * quality
        return scores.replaced(self.scale * scores.values, self.scale * target)

    def _quality(self, norms: torch.Tensor) -> torch.Tensor:
        """(N,) norms -> (N,) in -1..1; in training the averages take the batch in first."""
        if self.training:
            averages = [(self.mean, norms.mean())]
            if len(norms) > 1:
                averages.append((self.deviation, norms.std()))
            for buffer, value in averages:
                _move(buffer, buffer.lerp(value, self.momentum), value.isfinite())
        return (self.h * (norms - self.mean) / (self.deviation + self._EPSILON)).clamp(-1.0, 1.0)


class AdaCos(nn.Module):
    """Cosines times a scale that fits the number of classes, and in the ``dynamic`` form follows the training.

    The buffer ``scale`` starts at ``sqrt(2) log(classes - 1)``, which is the fixed form. The dynamic one is, before
    each step's logits, ``log(B) / cos(min(pi / 4, theta))``: B the mean over images of the sum of ``exp(scale cos)``
    over all other classes, theta the (lower) median angle to the own class. Of sampled classes, B has those the softmax
    has. A scale that would not be positive is not taken.

    Source: Zhang et al., AdaCos, CVPR 2019, equations 13 and 15 to 17.
    """

    scale: torch.Tensor

    def __init__(self, *, classes: int, dynamic: bool) -> None:
        super().__init__()
        self.dynamic = dynamic
        self.register_buffer("scale", torch.tensor(math.sqrt(2.0) * math.log(classes - 1.0)))

    def forward(self, scores: ClassScores, norms: torch.Tensor) -> ClassScores:
        if self.dynamic and self.training:
            self._adapt(scores)
        return dataclasses.replace(scores, values=self.scale.clone() * scores.values)

    @torch.no_grad()
    def _adapt(self, scores: ClassScores) -> None:
        theta = scores.all_targets().clamp(-1.0, 1.0).acos().median()
        nothing = scores.values.new_full(scores.columns.shape, -torch.inf)
        others = scores.replaced(self.scale * scores.values, nothing)
        log_sums = torch.stack(log_sum_exp(others.values, scores.group)).sum(0)
        log_mean = log_sums.logsumexp(0) - math.log(len(log_sums))
        scale = log_mean / theta.clamp_max(math.pi / 4.0).cos()
        _move(self.scale, scale, scale.isfinite() & (scale > 0.0))
