"""ResNet with bottlenecks, and SE-ResNet, for small aligned faces.

The networks differ from those for ImageNet in two ways. The stem is a 3x3 convolution of stride 1 with max pooling, so
that the last feature map has 8x8 cells at 128 px and 7x7 at 112 px. ``embedding_layers`` replace the average pooling and
the classifier; the option ``pooling`` restores the pooling, which removes most of the parameters. As in current
implementations, the stride of a bottleneck is in its 3x3 convolution. Initialisation: PyTorch's defaults.

Source: He et al., Deep residual learning, CVPR 2016; Hu et al., Squeeze-and-excitation networks, CVPR 2018.
"""

from __future__ import annotations

import torch
from torch import nn

from model.backbones.output import embedding_layers
from model.backbones.squeeze import SqueezeExcitation

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
STRIDE = 16  # input px per cell of the last feature map
_WIDTHS = (64, 128, 256, 512)
_EXPANSION = 4


class Bottleneck(nn.Module):
    """Residual block of 1x1, strided 3x3, 1x1: (N, channels, H, W) -> (N, 4 * width, H / stride, W / stride)."""

    def __init__(self, channels: int, width: int, *, stride: int, squeeze: bool) -> None:
        super().__init__()
        out = _EXPANSION * width
        self.residual = nn.Sequential(
            nn.Conv2d(channels, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, out, 1, bias=False),
            nn.BatchNorm2d(out),
            *([SqueezeExcitation(out)] if squeeze else []),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.shortcut(x) + self.residual(x))


def resnet(
    depth: int, *, squeeze: bool = False, image_size: int = 128, pooling: bool = False, dropout: float = 0.4
) -> nn.Sequential:
    """Builds a ResNet: (N, 3, S, S) -> (N, 512).

    Args:
        depth: number of layers, 50, 101 or 152.
        squeeze: adds squeeze-and-excitation to the end of each residual branch.
        image_size: side of the input in px, a multiple of 16.
        pooling, dropout: see ``embedding_layers``.
    """
    channels = _WIDTHS[0]
    layers: list[nn.Module] = [
        nn.Conv2d(3, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
    ]
    for number, (width, blocks) in enumerate(zip(_WIDTHS, BLOCKS[depth], strict=True)):
        stage = []
        for block in range(blocks):
            stage.append(Bottleneck(channels, width, stride=2 if number and not block else 1, squeeze=squeeze))
            channels = _EXPANSION * width
        layers.append(nn.Sequential(*stage))
    cells = (image_size // STRIDE) ** 2
    return nn.Sequential(*layers, embedding_layers(channels, cells, pooling=pooling, dropout=dropout))
