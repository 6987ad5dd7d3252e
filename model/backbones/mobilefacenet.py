"""MobileFaceNet: inverted bottlenecks, and a global depthwise convolution instead of pooling.

Differs from the paper in the embedding size, 512 instead of 128. The last feature map has 8x8 cells at 128 px, 7x7 at
112 px as in the paper. Initialisation: PyTorch's defaults.

Source: Chen et al., MobileFaceNets: Efficient CNNs for accurate real-time face verification on mobile devices, CCBR 2018.
"""

from __future__ import annotations

import torch
from torch import nn

from model.backbones.layers import EMBEDDING_SIZE, STRIDE, convolution

_STEM = 64  # channels of the first feature maps
_WIDE = 512  # channels of the last feature map
_STAGES = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))  # t, c, n, s in the paper


class InvertedBottleneck(nn.Module):
    """1x1 to ``expansion`` times the channels, depthwise 3x3, linear 1x1: (N, channels, H, W) -> (N, width, H / s, W / s).

    It has a shortcut if input and output have the same shape.
    """

    def __init__(self, channels: int, width: int, *, expansion: int, stride: int) -> None:
        super().__init__()
        wide = expansion * channels
        self.residual = nn.Sequential(
            *convolution(channels, wide, 1),
            nn.PReLU(wide),
            *convolution(wide, wide, 3, stride=stride, groups=wide),
            nn.PReLU(wide),
            *convolution(wide, width, 1),
        )
        self.shortcut = stride == 1 and channels == width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.residual(x) if self.shortcut else self.residual(x)


def mobilefacenet(*, image_size: int = 128) -> nn.Sequential:
    """Builds a MobileFaceNet, see ``build_backbone``: (N, 3, S, S) -> (N, 512)."""
    layers: list[nn.Module] = [
        *convolution(3, _STEM, 3, stride=2),
        nn.PReLU(_STEM),
        *convolution(_STEM, _STEM, 3, groups=_STEM),
        nn.PReLU(_STEM),
    ]
    channels = _STEM
    for expansion, width, count, stride in _STAGES:
        for number in range(count):
            step = 1 if number else stride
            layers.append(InvertedBottleneck(channels, width, expansion=expansion, stride=step))
            channels = width
    return nn.Sequential(
        *layers,
        *convolution(channels, _WIDE, 1),
        nn.PReLU(_WIDE),
        nn.Conv2d(_WIDE, _WIDE, image_size // STRIDE, groups=_WIDE, bias=False),  # to one cell
        nn.BatchNorm2d(_WIDE),
        nn.Flatten(),
        nn.Linear(_WIDE, EMBEDDING_SIZE, bias=False),
        nn.BatchNorm1d(EMBEDDING_SIZE),
    )
