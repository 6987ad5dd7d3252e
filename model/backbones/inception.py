"""Inception-ResNet-v1, the network of FaceNet's open implementations.

Its convolutions have no padding where a grid shrinks, so that images need a side of at least 80 px. The last feature map
is pooled. Initialisation: PyTorch's defaults.

Source: Szegedy et al., Inception-v4, Inception-ResNet and the impact of residual connections on learning, AAAI 2017; the
widths, the scales of residual branches and the 512 dimensions: D. Sandberg's facenet and T. Esler's facenet-pytorch.
"""

from __future__ import annotations

import torch
from torch import nn

from model.backbones.layers import EMBEDDING_SIZE

MIN_SIZE_PX = 80
_EPSILON = 1e-3  # of batch normalisation, TensorFlow's default
_A, _B, _C = 256, 896, 1792  # channels of the three grids
_BLOCKS = (5, 10, 5)
_SCALES = (0.17, 0.1, 0.2)

Kernel = int | tuple[int, int]


def _unit(channels: int, width: int, kernel: Kernel, *, stride: int = 1, padding: Kernel = 0) -> nn.Sequential:
    """Convolution, batch normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels, width, kernel, stride=stride, padding=padding, bias=False),
        nn.BatchNorm2d(width, eps=_EPSILON),
        nn.ReLU(),
    )


class Branches(nn.Module):
    """Layers side by side, their outputs concatenated: (N, C, H, W) -> (N, sum of C, H', W')."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class InceptionBlock(nn.Module):
    """Residual block: ``x + scale * convolution(branches(x))``, then ReLU unless ``last``: (N, C, H, W) -> the same."""

    def __init__(self, channels: int, width: int, branches: Branches, *, scale: float, last: bool = False) -> None:
        super().__init__()
        self.branches = branches
        self.convolution = nn.Conv2d(width, channels, 1)
        self.scale, self.last = scale, last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.scale * self.convolution(self.branches(x))
        return x if self.last else torch.relu(x)


def _block_a() -> InceptionBlock:
    branches = Branches(
        _unit(_A, 32, 1),
        nn.Sequential(_unit(_A, 32, 1), _unit(32, 32, 3, padding=1)),
        nn.Sequential(_unit(_A, 32, 1), _unit(32, 32, 3, padding=1), _unit(32, 32, 3, padding=1)),
    )
    return InceptionBlock(_A, 96, branches, scale=_SCALES[0])


def _factorised(channels: int, width: int, side: int) -> Branches:
    """A 1x1 convolution beside a square one of ``side``, which is split into a row and a column."""
    half = side // 2
    return Branches(
        _unit(channels, width, 1),
        nn.Sequential(
            _unit(channels, width, 1),
            _unit(width, width, (1, side), padding=(0, half)),
            _unit(width, width, (side, 1), padding=(half, 0)),
        ),
    )


def _block_b() -> InceptionBlock:
    return InceptionBlock(_B, 256, _factorised(_B, 128, 7), scale=_SCALES[1])


def _block_c(*, last: bool = False) -> InceptionBlock:
    return InceptionBlock(_C, 384, _factorised(_C, 192, 3), scale=1.0 if last else _SCALES[2], last=last)


def inception_resnet_v1(*, image_size: int = 160, dropout: float = 0.6) -> nn.Sequential:
    """Builds an Inception-ResNet-v1, see ``build_backbone``: (N, 3, S, S) -> (N, 512).

    Args:
        image_size: side of the input in px, at least 80; no layer depends on it.
        dropout: probability before the linear layer.
    """
    to_b = Branches(
        _unit(_A, 384, 3, stride=2),
        nn.Sequential(_unit(_A, 192, 1), _unit(192, 192, 3, padding=1), _unit(192, 256, 3, stride=2)),
        nn.MaxPool2d(3, stride=2),
    )
    to_c = Branches(
        nn.Sequential(_unit(_B, 256, 1), _unit(256, 384, 3, stride=2)),
        nn.Sequential(_unit(_B, 256, 1), _unit(256, 256, 3, stride=2)),
        nn.Sequential(_unit(_B, 256, 1), _unit(256, 256, 3, padding=1), _unit(256, 256, 3, stride=2)),
        nn.MaxPool2d(3, stride=2),
    )
    return nn.Sequential(
        _unit(3, 32, 3, stride=2),
        _unit(32, 32, 3),
        _unit(32, 64, 3, padding=1),
        nn.MaxPool2d(3, stride=2),
        _unit(64, 80, 1),
        _unit(80, 192, 3),
        _unit(192, _A, 3, stride=2),
        nn.Sequential(*(_block_a() for _ in range(_BLOCKS[0]))),
        to_b,
        nn.Sequential(*(_block_b() for _ in range(_BLOCKS[1]))),
        to_c,
        nn.Sequential(*(_block_c() for _ in range(_BLOCKS[2])), _block_c(last=True)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(_C, EMBEDDING_SIZE, bias=False),
        nn.BatchNorm1d(EMBEDDING_SIZE, eps=_EPSILON),
    )
