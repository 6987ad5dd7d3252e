"""DenseNet with bottlenecks and compression (DenseNet-BC) for small aligned faces.

Changed as ResNet is (see ``model.backbones.resnet``): a 3x3 stem of stride 1 before the max pooling, and
``embedding_layers``, whose first normalisation stands for the network's own last one, without the ReLU after it.
It is light in parameters and heavy in activations. Initialisation: PyTorch's defaults.

Source: Huang et al., Densely connected convolutional networks, CVPR 2017.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from model.backbones.output import embedding_layers

STRIDE = 16  # px of the input behind one cell of the last feature map
_BOTTLENECK = 4  # width of a layer's 1x1 convolution, in growth rates


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Layers of the four dense blocks; channels that each layer adds (the growth rate)."""

    blocks: tuple[int, int, int, int]
    growth: int


PLANS = {121: Plan(blocks=(6, 12, 24, 16), growth=32), 161: Plan(blocks=(6, 12, 36, 24), growth=48)}


class DenseLayer(nn.Module):
    """BN, ReLU, 1x1, BN, ReLU, 3x3: (N, C, H, W) -> (N, C + growth, H, W), the input's channels first."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        width = _BOTTLENECK * growth
        self.added = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat((x, self.added(x)), 1)


def transition(channels: int) -> nn.Sequential:
    """(N, channels, H, W) -> (N, channels / 2, H / 2, W / 2)."""
    return nn.Sequential(
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels, channels // 2, 1, bias=False),
        nn.AvgPool2d(2),
    )


def densenet(depth: int, *, image_size: int = 128, pooling: bool = False, dropout: float = 0.4) -> nn.Sequential:
    """DenseNet of ``depth`` layers.

    Args:
        depth: 121 or 161.
        image_size: side of the input, px, a multiple of 16.
        pooling, dropout: see ``embedding_layers``.
    """
    plan = PLANS[depth]
    channels = 2 * plan.growth
    layers: list[nn.Module] = [
        nn.Conv2d(3, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
    ]
    for number, count in enumerate(plan.blocks):
        if number:
            layers.append(transition(channels))
            channels //= 2
        layers.append(nn.Sequential(*(DenseLayer(channels + i * plan.growth, plan.growth) for i in range(count))))
        channels += count * plan.growth
    cells = (image_size // STRIDE) ** 2
    return nn.Sequential(*layers, embedding_layers(channels, cells, pooling=pooling, dropout=dropout))
