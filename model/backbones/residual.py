"""Residual networks for small aligned faces: IR and IR-SE of ArcFace; ResNet with bottlenecks, and SE-ResNet.

The last feature map has 8x8 cells at 128 px and 7x7 at 112 px; 4x4 after a stem of stride 2. Initialisation: PyTorch's
defaults.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from model.backbones.layers import STRIDE, SqueezeExcitation, convolution, embedding_layers

IR_UNITS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 14, 3),
    101: (3, 13, 30, 3),
    152: (3, 8, 36, 3),
    200: (6, 26, 60, 6),
}
IRB_UNITS = {152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}
ORIGINS = ("adaface", "reference")  # whose IR differs from ArcFace's, see ``ir``
RESNET_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_WIDTHS = (64, 128, 256, 512)


class Residual(nn.Module):
    """Shortcut plus residual branch: (N, channels, H, W) -> (N, out, H / stride, W / stride).

    The shortcut is a strided 1x1 convolution with batch normalisation where the shape changes. With ``subsample``, a
    change of resolution alone takes every ``stride``-th cell instead.
    """

    expansion = 1  # output channels in units of the width

    def __init__(
        self,
        channels: int,
        out: int,
        residual: list[nn.Module],
        *,
        stride: int,
        squeeze: bool,
        subsample: bool = False,
    ) -> None:
        super().__init__()
        self.residual = nn.Sequential(*residual, *([SqueezeExcitation(out)] if squeeze else []))
        self.shortcut: nn.Module = nn.Identity()
        if subsample and channels == out:
            self.shortcut = nn.MaxPool2d(1, stride)
        elif stride != 1 or channels != out:
            self.shortcut = nn.Sequential(*convolution(channels, out, 1, stride=stride))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shortcut(x) + self.residual(x)


class ImprovedUnit(Residual):
    """Residual unit of BN, 3x3, BN, PReLU, strided 3x3, BN: (N, channels, H, W) -> (N, width, H / stride, W / stride).

    ``origin``: see ``ir``.
    """

    def __init__(self, channels: int, width: int, *, stride: int, squeeze: bool, origin: str | None = None) -> None:
        first = convolution(channels, width, 3)
        residual = [
            nn.BatchNorm2d(channels),
            *(first[:1] if origin == "reference" else first),
            nn.PReLU(width),
            *convolution(width, width, 3, stride=stride),
        ]
        super().__init__(channels, width, residual, stride=stride, squeeze=squeeze, subsample=origin is not None)


class BottleneckUnit(Residual):
    """Improved unit of 1x1, 3x3, strided 1x1: (N, channels, H, W) -> (N, 4 * width, H / stride, W / stride)."""

    expansion = 4

    def __init__(self, channels: int, width: int, *, stride: int, squeeze: bool) -> None:
        out = self.expansion * width
        residual = [
            nn.BatchNorm2d(channels),
            *convolution(channels, width, 1),
            nn.PReLU(width),
            *convolution(width, width, 3),
            nn.PReLU(width),
            *convolution(width, out, 1, stride=stride),
        ]
        super().__init__(channels, out, residual, stride=stride, squeeze=squeeze)


class Bottleneck(Residual):
    """Residual block of 1x1, strided 3x3, 1x1: (N, channels, H, W) -> (N, 4 * width, H / stride, W / stride)."""

    expansion = 4

    def __init__(self, channels: int, width: int, *, stride: int, squeeze: bool) -> None:
        out = self.expansion * width
        residual = [
            *convolution(channels, width, 1),
            nn.ReLU(inplace=True),
            *convolution(width, width, 3, stride=stride),
            nn.ReLU(inplace=True),
            *convolution(width, out, 1),
        ]
        super().__init__(channels, out, residual, stride=stride, squeeze=squeeze)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(super().forward(x))


def ir(
    depth: int,
    *,
    squeeze: bool = False,
    image_size: int = 128,
    pooling: bool = False,
    dropout: float = 0.4,
    origin: str | None = None,
) -> nn.Sequential:
    """Builds an IR network: (N, 3, S, S) -> (N, 512).

    The usual names do not count layers exactly, because every unit has two convolutions: ``ir101`` has 100 layers
    (InsightFace's r100), ``ir152`` has 102. The first unit of each of the four stages has stride 2.

    Args:
        depth: 18, 34, 50, 101, 152 or 200.
        squeeze: adds squeeze-and-excitation to the end of each residual branch.
        image_size, pooling, dropout: see ``build_backbone``.
        origin: ``adaface``: as Kim et al., AdaFace, CVPR 2022, whose first stage has a shortcut without weights;
            ``reference``: as Lai & Lam, 2024 (after face.evoLVe), which also leaves out the batch normalisation
            between a unit's first convolution and PReLU.

    Source: Deng et al., ArcFace, CVPR 2019; the unit: Han et al., Deep pyramidal residual networks, CVPR 2017.
    """
    stages = _stages(ImprovedUnit, IR_UNITS[depth], strides=(2, 2, 2, 2), squeeze=squeeze, origin=origin)
    cells = (image_size // STRIDE) ** 2
    return nn.Sequential(*_ir_stem(), *stages, embedding_layers(_WIDTHS[-1], cells, pooling=pooling, dropout=dropout))


def irb(
    depth: int, *, squeeze: bool = False, image_size: int = 128, pooling: bool = False, dropout: float = 0.4
) -> nn.Sequential:
    """Builds an IR network with bottlenecks, AdaFace's IR-152 and IR-200: (N, 3, S, S) -> (N, 512).

    Args:
        depth: 152 or 200.
        squeeze: adds squeeze-and-excitation to the end of each residual branch.
        image_size, pooling, dropout: see ``build_backbone``.

    Source: Kim et al., AdaFace, CVPR 2022.
    """
    stages = _stages(BottleneckUnit, IRB_UNITS[depth], strides=(2, 2, 2, 2), squeeze=squeeze)
    channels, cells = BottleneckUnit.expansion * _WIDTHS[-1], (image_size // STRIDE) ** 2
    last = embedding_layers(channels, cells, pooling=pooling, dropout=dropout)
    return nn.Sequential(*_ir_stem(), *stages, last)


def _ir_stem() -> list[nn.Module]:
    return [*convolution(3, _WIDTHS[0], 3), nn.PReLU(_WIDTHS[0])]


def resnet(
    depth: int,
    *,
    squeeze: bool = False,
    stem: int = 3,
    image_size: int = 128,
    pooling: bool = False,
    dropout: float = 0.4,
) -> nn.Sequential:
    """Builds a ResNet: (N, 3, S, S) -> (N, 512).

    It differs from ResNets for ImageNet in two ways. The stem is a 3x3 convolution of stride 1 with max pooling; 7 is
    theirs of stride 2. ``embedding_layers`` replace the average pooling and the classifier; ``pooling`` restores the
    average pooling, which removes most of the parameters. The stride of a bottleneck is in its 3x3 convolution, as in
    torchvision.

    Args:
        depth: number of layers, 50, 101 or 152.
        squeeze: adds squeeze-and-excitation to the end of each residual branch.
        stem: side of the first convolution's kernel, 3 or 7.
        image_size, pooling, dropout: see ``build_backbone``.

    Source: He et al., Deep residual learning, CVPR 2016; Hu et al., Squeeze-and-excitation networks, CVPR 2018; with
    a stem of 7: Lai & Lam, 2024 (after face.evoLVe).
    """
    stride = 1 if stem == 3 else 2
    first = [*convolution(3, _WIDTHS[0], stem, stride=stride), nn.ReLU(inplace=True)]
    stages = _stages(Bottleneck, RESNET_BLOCKS[depth], strides=(1, 2, 2, 2), squeeze=squeeze)
    channels, cells = Bottleneck.expansion * _WIDTHS[-1], math.ceil(image_size / (STRIDE * stride)) ** 2
    last = embedding_layers(channels, cells, pooling=pooling, dropout=dropout)
    return nn.Sequential(*first, nn.MaxPool2d(3, stride=2, padding=1), *stages, last)


def _stages(
    block: type[ImprovedUnit | BottleneckUnit | Bottleneck],
    counts: tuple[int, ...],
    *,
    strides: tuple[int, ...],
    **options: Any,
) -> list[nn.Module]:
    """The stages; ``strides`` are those of their first blocks, ``options`` other arguments of every block."""
    channels, stages = _WIDTHS[0], list[nn.Module]()
    for width, count, stride in zip(_WIDTHS, counts, strides, strict=True):
        blocks = []
        for number in range(count):
            blocks.append(block(channels, width, stride=1 if number else stride, **options))
            channels = block.expansion * width
        stages.append(nn.Sequential(*blocks))
    return stages
