"""Layers that several backbones share."""

from __future__ import annotations

import torch
from torch import nn

EMBEDDING_SIZE = 512
STRIDE = 16  # input px per cell of a convolutional backbone's last feature map
_REDUCTION = 16  # of squeeze-and-excitation


def convolution(channels: int, width: int, kernel: int, *, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A padded convolution without bias, and batch normalisation: (N, channels, H, W) -> (N, width, H / s, W / s)."""
    return [
        nn.Conv2d(channels, width, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(width),
    ]


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


def embedding_layers(channels: int, cells: int, *, pooling: bool = False, dropout: float = 0.4) -> nn.Sequential:
    """Batch normalisation, dropout, linear layer, batch normalisation: (N, channels, H, W) -> (N, 512).

    The linear layer has weights for every cell, because facial features have fixed positions in an aligned crop. It has
    no bias, because the normalisation after it would remove the bias.

    Args:
        channels: of the feature map.
        cells: H * W.
        pooling: adds global average pooling before the dropout, which divides the linear layer's size by ``cells``.
        dropout: probability before the linear layer.

    Source: Deng et al., ArcFace, CVPR 2019, option E; also the dropout of 0.4.
    """
    return nn.Sequential(
        nn.BatchNorm2d(channels),
        *([nn.AdaptiveAvgPool2d(1)] if pooling else []),
        nn.Dropout(dropout),
        nn.Flatten(),
        nn.Linear(channels * (1 if pooling else cells), EMBEDDING_SIZE, bias=False),
        nn.BatchNorm1d(EMBEDDING_SIZE),
    )
