"""From the last feature map to the embedding: the same layers for every convolutional backbone with batch normalisation."""

from __future__ import annotations

from torch import nn

EMBEDDING_SIZE = 512


def embedding_layers(channels: int, cells: int, *, pooling: bool = False, dropout: float = 0.4) -> nn.Sequential:
    """(N, channels, H, W) -> (N, 512): batch normalisation, dropout, linear layer, batch normalisation.

    The linear layer sees every cell, since aligned faces have each part in its place; pooling would forget the place.
    It has no bias: the normalisation after it would take any away again.

    Args:
        channels: of the feature map.
        cells: H * W.
        pooling: global average pooling before the dropout, for a linear layer of 1 / ``cells`` the size.
        dropout: probability before the linear layer.

    Source: Deng et al., ArcFace, CVPR 2019, option E, also for the dropout of 0.4.
    """
    return nn.Sequential(
        nn.BatchNorm2d(channels),
        *([nn.AdaptiveAvgPool2d(1)] if pooling else []),
        nn.Dropout(dropout),
        nn.Flatten(),
        nn.Linear(channels * (1 if pooling else cells), EMBEDDING_SIZE, bias=False),
        nn.BatchNorm1d(EMBEDDING_SIZE),
    )
