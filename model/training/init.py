"""Data-dependent initialisation, from which plain networks without normalisation layers learn immediately."""

from __future__ import annotations

import torch
from torch import nn

PRELU_SLOPE = 0.25  # PyTorch's initial value
EMBEDDING_STD = 5.0  # initial standard deviation of each embedding dimension
MIN_STD = 1e-3


def initialise_from_data(backbone: nn.Module, head: nn.Module, inputs: torch.Tensor) -> None:
    """He weights and zero biases; embeddings centred on ``inputs`` with standard deviation 5; unit-length head weights.

    With PyTorch's defaults all faces start with nearly the same embedding, and an update moves all embeddings together,
    further than the distances between them: the activations before the last layer have a large common part. Long,
    centred embeddings start far apart and turn slowly; unit-length head weights turn faster than long ones.

    Args:
        head: its ``weight`` is (classes, features).
        inputs: (N, 3, S, S) float, a batch of network inputs, N > 1.

    Source: He et al., ICCV 2015; for the last layer only: Mishkin & Matas, All you need is a good init, ICLR 2016.
    """
    layers = [layer for layer in backbone.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, a=PRELU_SLOPE)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    last = layers[-1]
    with torch.no_grad():
        features = backbone(inputs)
        scale = EMBEDDING_STD / features.std(0).clamp_min(MIN_STD)
        last.weight.mul_(scale[:, None])
        nn.init.zeros_(last.bias).sub_(features.mean(0) * scale)  # type: ignore[arg-type]
        head.weight.copy_(nn.functional.normalize(head.weight))  # type: ignore[operator, arg-type]
