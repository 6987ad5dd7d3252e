"""Layers from the last feature map to the embedding, shared by the convolutional backbones with batch normalisation."""

from __future__ import annotations

from torch import nn

EMBEDDING_SIZE = 512


def embedding_layers(channels: int, cells: int, *, pooling: bool = False, dropout: float = 0.4) -> nn.Sequential:
    """Batch normalisation, dropout, linear layer, batch normalisation: (N, channels, H, W) -> (N, 512).

    The linear layer has weights for every cell, because facial features have fixed positions in an aligned crop. It has
    no bias, because the normalisation after it would remove the bias.

    Args:
        channels: of the feature map.
        cells: H * W.
        pooling: adds global average pooling before the dropout, which divides the linear layer's size by ``cells``.
        dropout: probability before the linear layer.

    Source: Deng et al., ArcFace, CVPR 2019, option E; also the dropout of 0.4.
    """
    return nn.Sequential(
        nn.BatchNorm2d(channels),
        *([nn.AdaptiveAvgPool2d(1)] if pooling else []),
        nn.Dropout(dropout),
        nn.Flatten(),
        nn.Linear(channels * (1 if pooling else cells), EMBEDDING_SIZE, bias=False),
        nn.BatchNorm1d(EMBEDDING_SIZE),
    )
