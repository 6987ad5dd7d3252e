"""Vision transformers on PyTorch's transformer encoder.

``vit_small`` has 8 px patches; its embedding is a linear layer and batch normalisation, as in the other backbones, on
the mean of the tokens. There is no class token (Beyer et al., Better plain ViT baselines for ImageNet-1k, 2022).

The transformers of face recognition keep every token for the embedding, in two linear layers with batch normalisation,
have ReLU6, and queries, keys and values without bias. Their authors also mask tokens (up to 10 %) and drop residual
branches (5 to 10 %) in training, which these do not.

Source: Dosovitskiy et al., An image is worth 16x16 words, ICLR 2021; width and heads of ``vit_small``: Touvron et al.,
Training data-efficient image transformers, ICML 2021; of the others: An et al., Killing two birds with one stone, CVPR
2022 (insightface), and Kim et al., KeyPoint relative position encoding, CVPR 2024 (CVLface).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from model.backbones.layers import EMBEDDING_SIZE

_POSITION_STD = 0.02  # of the initial position embeddings, as Dosovitskiy et al.
_EPSILON = 2e-5  # of batch normalisation after every token's features


class Shape(NamedTuple):
    """Size of a transformer.

    Attributes:
        patch: side of a patch, px. What is left of the image at its right and lower border is not seen.
        width: features of a token.
        depth: encoder layers.
        heads: of attention.
        mlp: width of an encoder layer's hidden layer.
        faces: as the networks of face recognition differ, see the module.
    """

    patch: int
    width: int
    depth: int
    heads: int
    mlp: int
    faces: bool = True

    def tokens(self, image_size: int) -> int:
        """Number of patches of an image with ``image_size`` px a side."""
        return (image_size // self.patch) ** 2


SHAPES = {
    "vit_small": Shape(8, 384, 12, 6, 1536, faces=False),  # 256 tokens at 128 px, similar to 196 of 16 px at 224 px
    "insightface_vit_t": Shape(9, 256, 12, 8, 1024),
    "insightface_vit_s": Shape(9, 512, 12, 8, 2048),
    "insightface_vit_b": Shape(9, 512, 24, 8, 2048),
    "insightface_vit_l": Shape(9, 768, 24, 8, 3072),
    "cvlface_vit_small": Shape(8, 512, 12, 8, 2560),
    "cvlface_vit_base": Shape(8, 512, 24, 16, 1536),
}


class VisionTransformer(nn.Module):
    """Vision transformer: (N, 3, S, S) -> (N, 512).

    Args:
        name: a key of ``SHAPES``.
        image_size: side of the input in px.
        dropout: probability before the first linear layer of the embedding. The encoder has no dropout.
    """

    def __init__(self, name: str = "vit_small", *, image_size: int = 128, dropout: float = 0.0) -> None:
        super().__init__()
        shape = SHAPES[name]
        self.faces, width, tokens = shape.faces, shape.width, shape.tokens(image_size)
        activation: str | Callable[[torch.Tensor], torch.Tensor] = functional.relu6 if self.faces else "gelu"
        layer = nn.TransformerEncoderLayer(
            width, shape.heads, shape.mlp, dropout=0.0, activation=activation, batch_first=True, norm_first=True
        )
        if self.faces:
            layer.self_attn.in_proj_bias = None  # type: ignore[assignment]
        self.patches = nn.Conv2d(3, width, shape.patch, stride=shape.patch)
        self.positions = nn.Parameter(torch.empty(1, tokens, width))
        self.encoder = nn.TransformerEncoder(layer, shape.depth, norm=nn.LayerNorm(width), enable_nested_tensor=False)
        if self.faces:
            linear = [nn.Linear(tokens * width, width, bias=False), nn.BatchNorm1d(width, eps=_EPSILON)]
            linear += [nn.Linear(width, EMBEDDING_SIZE, bias=False), nn.BatchNorm1d(EMBEDDING_SIZE, eps=_EPSILON)]
        else:
            linear = [nn.Linear(width, EMBEDDING_SIZE, bias=False), nn.BatchNorm1d(EMBEDDING_SIZE)]
        self.embedding = nn.Sequential(nn.Dropout(dropout), *linear)
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
        tokens = self.encoder(self.patches(x).flatten(2).transpose(1, 2) + self.positions)
        return self.embedding(tokens.flatten(1) if self.faces else tokens.mean(1))
