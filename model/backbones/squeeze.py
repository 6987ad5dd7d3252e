"""Squeeze-and-excitation: channel weights computed from global averages."""

from __future__ import annotations

import torch
from torch import nn

_REDUCTION = 16


class SqueezeExcitation(nn.Module):
    """Multiplies each channel by a weight in 0..1 computed from the means of all channels: (N, C, H, W) -> (N, C, H, W).

    Source: Hu et al., Squeeze-and-excitation networks, CVPR 2018; also the reduction of 16.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // _REDUCTION, 1),  # equals a linear layer, as H = W = 1
            nn.ReLU(inplace=True),
            nn.Conv2d(channels // _REDUCTION, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gate(x)
