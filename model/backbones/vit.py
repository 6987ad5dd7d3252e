"""ViT-Small with 8 px patches, on PyTorch's transformer encoder.

The embedding is a linear layer and batch normalisation, as in the other backbones, on the mean of the tokens. There is
no class token (Beyer et al., Better plain ViT baselines for ImageNet-1k, 2022).

Source: Dosovitskiy et al., An image is worth 16x16 words, ICLR 2021; width and heads: Touvron et al., Training
data-efficient image transformers, ICML 2021.
"""

from __future__ import annotations

import torch
from torch import nn

from model.backbones.layers import EMBEDDING_SIZE

PATCH = 8  # px; 256 tokens at 128 px, similar to the 196 of 16 px patches at 224 px
_WIDTH, _DEPTH, _HEADS, _MLP = 384, 12, 6, 1536
_POSITION_STD = 0.02  # of the initial position embeddings, as Dosovitskiy et al.


class VisionTransformer(nn.Module):
    """Vision transformer: (N, 3, S, S) -> (N, 512).

    Args:
        image_size: side of the input in px, a multiple of 8.
        dropout: probability before the last linear layer. The encoder has no dropout.
    """

    def __init__(self, *, image_size: int = 128, dropout: float = 0.0) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            _WIDTH, _HEADS, _MLP, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.patches = nn.Conv2d(3, _WIDTH, PATCH, stride=PATCH)
        self.positions = nn.Parameter(torch.empty(1, (image_size // PATCH) ** 2, _WIDTH))
        self.encoder = nn.TransformerEncoder(layer, _DEPTH, norm=nn.LayerNorm(_WIDTH), enable_nested_tensor=False)
        self.embedding = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(_WIDTH, EMBEDDING_SIZE, bias=False), nn.BatchNorm1d(EMBEDDING_SIZE)
        )
        self._initialise()

    def _initialise(self) -> None:
        """Initialises positions and encoder layers; the other layers keep PyTorch's defaults.

        ``nn.TransformerEncoder`` copies one layer, so all layers would have the same weights. Xavier weights and zero
        biases, as Dosovitskiy et al. and ``nn.Transformer``.
        """
        nn.init.trunc_normal_(self.positions, std=_POSITION_STD)
        for name, parameter in self.encoder.layers.named_parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return self.embedding(self.encoder(tokens).mean(1))
