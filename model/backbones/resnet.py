"""ResNet with bottlenecks, and SE-ResNet, for small aligned faces.

Two changes to the networks for ImageNet. The stem is a 3x3 convolution of stride 1, max pooling after it, so that the
last feature map has 8x8 cells at 128 px (7x7 at 112 px) as theirs has 7x7 at 224 px. The average pooling and the
classifier give way to ``embedding_layers``; ``pooling`` brings the former back, and with it most of the size down.
A bottleneck strides in its 3x3 convolution, as is usual since. Initialisation: PyTorch's defaults.

Source: He et al., Deep residual learning, CVPR 2016; Hu et al., Squeeze-and-excitation networks, CVPR 2018.
"""

from __future__ import annotations

import torch
from torch import nn

from model.backbones.output import embedding_layers
from model.backbones.squeeze import SqueezeExcitation

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
STRIDE = 16  # px of the input behind one cell of the last feature map
_WIDTHS = (64, 128, 256, 512)
_EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3 with the stride, 1x1 around a shortcut: (N, channels, H, W) -> (N, 4 * width, H/s, W/s)."""

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
    """ResNet of ``depth`` layers.

    Args:
        depth: 50, 101 or 152.
        squeeze: squeeze-and-excitation at the end of each residual branch.
        image_size: side of the input, px, a multiple of 16.
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
