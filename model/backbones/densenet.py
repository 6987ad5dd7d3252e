"""DenseNet with bottlenecks and compression (DenseNet-BC) for small aligned faces.

Differs from the paper as ``model.backbones.residual.resnet`` does: a 3x3 stem of stride 1, and ``embedding_layers`` at
the end, whose first normalisation replaces the last BN and ReLU of the network. Initialisation: PyTorch's defaults.

Source: Huang et al., Densely connected convolutional networks, CVPR 2017.
"""

from __future__ import annotations

import torch
from torch import nn

from model.backbones.layers import STRIDE, convolution, embedding_layers

_BOTTLENECK = 4  # width of a layer's 1x1 convolution in units of the growth rate
PLANS = {121: ((6, 12, 24, 16), 32), 161: ((6, 12, 36, 24), 48)}  # layers of each dense block, growth rate


class DenseLayer(nn.Module):
    """BN, ReLU, 1x1, BN, ReLU, 3x3, concatenated to the input: (N, C, H, W) -> (N, C + growth, H, W)."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        width = _BOTTLENECK * growth
        self.added = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            *convolution(channels, width, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat((x, self.added(x)), 1)


def transition(channels: int) -> nn.Sequential:
    """BN, ReLU, 1x1 and average pooling: (N, channels, H, W) -> (N, channels / 2, H / 2, W / 2)."""
    return nn.Sequential(
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels // 2, 1, bias=False),
        nn.AvgPool2d(2),
    )


def densenet(depth: int, *, image_size: int = 128, pooling: bool = False, dropout: float = 0.4) -> nn.Sequential:
    """Builds a DenseNet of 121 or 161 layers, see ``build_backbone``: (N, 3, S, S) -> (N, 512)."""
    blocks, growth = PLANS[depth]
    channels = 2 * growth
    layers = [*convolution(3, channels, 3), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2, padding=1)]
    for number, count in enumerate(blocks):
        if number:
            layers.append(transition(channels))
            channels //= 2
        layers.append(nn.Sequential(*(DenseLayer(channels + i * growth, growth) for i in range(count))))
        channels += count * growth
    cells = (image_size // STRIDE) ** 2
    return nn.Sequential(*layers, embedding_layers(channels, cells, pooling=pooling, dropout=dropout))
