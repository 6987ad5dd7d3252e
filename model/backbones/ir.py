"""IR and IR-SE: ArcFace's networks of improved residual units, without and with squeeze-and-excitation.

The usual names do not count layers exactly, because every unit has two convolutions: ``ir101`` has 100 layers
(InsightFace's r100), ``ir152`` has 102. Initialisation: PyTorch's defaults.

Source: Deng et al., ArcFace, CVPR 2019; the unit: Han et al., Deep pyramidal residual networks, CVPR 2017.
"""

from __future__ import annotations

import torch
from torch import nn

from model.backbones.output import embedding_layers
from model.backbones.squeeze import SqueezeExcitation

UNITS = {18: (2, 2, 2, 2), 50: (3, 4, 14, 3), 101: (3, 13, 30, 3), 152: (3, 8, 36, 3)}
STRIDE = 16  # input px per cell of the last feature map
_WIDTHS = (64, 128, 256, 512)


class ImprovedUnit(nn.Module):
    """Residual unit of BN, 3x3, BN, PReLU, strided 3x3, BN: (N, channels, H, W) -> (N, width, H / stride, W / stride)."""

    def __init__(self, channels: int, width: int, *, stride: int, squeeze: bool) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.PReLU(width),
            nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            *([SqueezeExcitation(width)] if squeeze else []),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shortcut(x) + self.residual(x)


def ir(
    depth: int, *, squeeze: bool = False, image_size: int = 128, pooling: bool = False, dropout: float = 0.4
) -> nn.Sequential:
    """Builds an IR network: (N, 3, S, S) -> (N, 512).

    The first unit of each of the four stages has stride 2. The last feature map has 8x8 cells at 128 px, 7x7 at 112 px.

    Args:
        depth: 18, 50, 101 or 152.
        squeeze: adds squeeze-and-excitation to the end of each residual branch.
        image_size: side of the input in px, a multiple of 16.
        pooling, dropout: see ``embedding_layers``.
    """
    channels = _WIDTHS[0]
    layers: list[nn.Module] = [
        nn.Conv2d(3, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.PReLU(channels),
    ]
    for width, units in zip(_WIDTHS, UNITS[depth], strict=True):
        stage = []
        for unit in range(units):
            stage.append(ImprovedUnit(channels, width, stride=1 if unit else 2, squeeze=squeeze))
            channels = width
        layers.append(nn.Sequential(*stage))
    cells = (image_size // STRIDE) ** 2
    return nn.Sequential(*layers, embedding_layers(channels, cells, pooling=pooling, dropout=dropout))
