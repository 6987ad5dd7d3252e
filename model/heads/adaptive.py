"""Margins with state in buffers, so that a resumed run continues exactly.

Like the statistics of batch normalisation, buffers are updated in the forward pass, in training mode only; one forward
pass is one step. Every rank sees the same batch, so all ranks have the same buffers. Values that are not finite never
enter a buffer, so that no checkpoint contains them.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import nn

from model.heads.scores import ClassScores
from model.sharding import log_sum_exp


def _update(buffer: torch.Tensor, value: torch.Tensor, valid: torch.Tensor) -> None:
    buffer.copy_(torch.where(valid, value, buffer))


class ASoftmax(nn.Module):
    """Multiplicative angular margin: ``|x| (lambda cos + psi) / (1 + lambda)`` for the target, ``|x| cos`` for the others.

    psi(theta) = (-1)^k cos(m theta) - 2k for theta in [k pi / m, (k + 1) pi / m]. lambda decreases from ``base`` to
    ``least``: ``max(least, base / (1 + decay * iteration))``. The buffer ``iteration`` counts steps.

    Source: Liu et al., SphereFace, CVPR 2017, equation 7; the schedule is that of the released code.
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
        """psi by Chebyshev polynomials. The arc cosine has no gradient at 0 and pi, so it only determines k."""
        previous, current = torch.ones_like(cosine), cosine
        for _ in range(self.margin - 1):
            previous, current = current, 2.0 * cosine * current - previous
        theta = cosine.detach().clamp(-1.0, 1.0).acos()
        k = (theta * self.margin / math.pi).floor().clamp_max(self.margin - 1)
        return (1.0 - 2.0 * (k % 2)) * current - 2.0 * k


class AdaFace(nn.Module):
    """Margin by image quality: ``s (cos(theta - m z) - m - m z)`` for the target, ``s cos`` for the others.

    z estimates the quality from the feature's norm: ``h (norm - mean) / deviation``, clipped to -1..1, without gradient.
    Mean and standard deviation are exponential averages over batches including the current one, in the buffers ``mean``
    and ``deviation``. They start at 20 and 100 as in the released code. A batch of one image updates the mean only.

    Source: Kim et al., AdaFace, CVPR 2022, equations 11 to 16.
    """

    mean: torch.Tensor
    deviation: torch.Tensor
    _EPSILON = 1e-3  # smallest angle, and added to the deviation, as in the released code

    def __init__(self, *, scale: float, margin: float, h: float, momentum: float) -> None:
        super().__init__()
        self.scale, self.margin, self.h, self.momentum = scale, margin, h, momentum
        self.register_buffer("mean", torch.tensor(20.0))
        self.register_buffer("deviation", torch.tensor(100.0))

    def forward(self, scores: ClassScores, norms: torch.Tensor) -> ClassScores:
        quality = self._quality(norms.detach())
        bound = math.cos(self._EPSILON)
        theta = scores.target().clamp(-bound, bound).acos()
        shifted = (theta - self.margin * quality).clamp(self._EPSILON, math.pi - self._EPSILON).cos()
        target = shifted - self.margin - self.margin * quality
        return scores.replaced(self.scale * scores.values, self.scale * target)

    def _quality(self, norms: torch.Tensor) -> torch.Tensor:
        """Image quality: (N,) norms -> (N,) in -1..1. In training mode the averages are updated first."""
        if self.training:
            averages = [(self.mean, norms.mean())]
            if len(norms) > 1:
                averages.append((self.deviation, norms.std()))
            for buffer, value in averages:
                _update(buffer, buffer.lerp(value, self.momentum), value.isfinite())
        return (self.h * (norms - self.mean) / (self.deviation + self._EPSILON)).clamp(-1.0, 1.0)


class AdaCos(nn.Module):
    """Cosines times an adaptive scale, without a margin.

    The buffer ``scale`` starts at ``sqrt(2) log(classes - 1)``. If ``dynamic``, it is updated to ``log(B) / cos(min(pi /
    4, theta))`` before the logits of each training step; otherwise it stays. B is the mean over images of the sum of
    ``exp(scale cos)`` over all classes but the target, or over the sampled ones; theta is the (lower) median angle to
    the target class. Updates that are not positive are skipped.

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
        excluded = scores.values.new_full(scores.columns.shape, -torch.inf)
        others = scores.replaced(self.scale * scores.values, excluded)
        log_sums = torch.stack(log_sum_exp(others.values, scores.group)).sum(0)
        log_mean = log_sums.logsumexp(0) - math.log(len(log_sums))
        scale = log_mean / theta.clamp_max(math.pi / 4.0).cos()
        _update(self.scale, scale, scale.isfinite() & (scale > 0.0))
