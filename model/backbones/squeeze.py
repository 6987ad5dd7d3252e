"""Squeeze-and-excitation: feature maps weighted by what the whole image holds."""

from __future__ import annotations

import torch
from torch import nn

_REDUCTION = 16


class SqueezeExcitation(nn.Module):
    """Scales each channel of (N, C, H, W) by a number in 0..1 computed from the means of all channels.

    Source: Hu et al., Squeeze-and-excitation networks, CVPR 2018, with their reduction of 16.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // _REDUCTION, 1),  # on one cell: their linear layers
            nn.ReLU(inplace=True),
            nn.Conv2d(channels // _REDUCTION, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gate(x)
