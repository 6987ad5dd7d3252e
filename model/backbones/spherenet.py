"""SphereNet: SphereFace's residual networks without normalisation layers.

Source: Liu et al., SphereFace, CVPR 2017; widths and input size: Lai & Lam, APSIPA ASC 2021.
"""

from __future__ import annotations

import torch
from torch import nn

from model.backbones.layers import EMBEDDING_SIZE, STRIDE

BLOCKS = {4: (0, 0, 0, 0), 10: (0, 1, 2, 0), 20: (1, 2, 4, 1), 36: (2, 4, 8, 2), 64: (3, 8, 16, 3)}
WIDTHS = (64, 128, 256, 512)


class ResBlock(nn.Module):
    """Residual block of two 3x3 convolutions with PReLU: (N, width, H, W) -> (N, width, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.resblock = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.PReLU(width),
            nn.Conv2d(width, width, 3, padding=1),
            nn.PReLU(width),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.resblock(x)


def spherenet(depth: int, *, image_size: int = 128, pooling: bool = False, dropout: float = 0.0) -> nn.Sequential:
    """Builds a SphereNet: (N, 3, S, S) -> (N, 512).

    It is one ``nn.Sequential``, so that its state dict has the keys of the reference's checkpoints.

    Args:
        depth: number of layers, 4, 10, 20, 36 or 64.
        image_size, pooling, dropout: see ``build_backbone``; a dropout of 0 adds no layer.
    """
    layers: list[nn.Module] = []
    channels = 3
    for width, blocks in zip(WIDTHS, BLOCKS[depth], strict=True):
        layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.PReLU(width)]
        if blocks:
            layers.append(nn.Sequential(*(ResBlock(width) for _ in range(blocks))))
        channels = width
    if pooling:
        layers.append(nn.AdaptiveAvgPool2d(1))
    layers.append(nn.Flatten())
    if dropout:
        layers.append(nn.Dropout(dropout))
    cells = 1 if pooling else (image_size // STRIDE) ** 2
    layers.append(nn.Linear(channels * cells, EMBEDDING_SIZE))
    return nn.Sequential(*layers)


def infer_spherenet(shapes: list[tuple[int, ...]]) -> tuple[int, int, bool] | None:
    """Finds the SphereNet that has the given parameter shapes.

    Args:
        shapes: of all parameters, in layer order.

    Returns:
        Depth, image size in px and pooling; None if no SphereNet fits. With pooling, the shapes do not depend on the
        image size, and 128 is returned.
    """
    convolutions = [shape[0] for shape in shapes if len(shape) == 4]
    blocks = tuple((convolutions.count(width) - 1) // 2 for width in WIDTHS)
    depth = next((depth for depth, known in BLOCKS.items() if known == blocks), None)
    linear = next((shape for shape in shapes if len(shape) == 2), None)
    if depth is None or linear is None or linear[1] % WIDTHS[-1]:
        return None
    cells = linear[1] // WIDTHS[-1]
    return depth, 128 if cells == 1 else int(cells**0.5) * STRIDE, cells == 1
