"""Data-dependent initialisation: a start from which plain networks without normalisation layers learn at once."""

from __future__ import annotations

import torch
from torch import nn

_PRELU_SLOPE = 0.25  # PyTorch's initial one
_LEAST_SPREAD = 1e-3


def initialise_from_data(backbone: nn.Module, inputs: torch.Tensor) -> None:
    """He weights without biases; then each embedding dimension gets mean 0 and deviation 1 over ``inputs``.

    From PyTorch's defaults all faces start with nearly the same embedding, and the hardest triplet pulls them closer
    still: a cosine loss sees no difference to enlarge for hundreds of updates.

    Args:
        inputs: (N, 3, S, S) float, a batch of network inputs, N > 1.

    Source: He et al., ICCV 2015; Mishkin & Matas, All you need is a good init, ICLR 2016, for the last layer only.
    """
    layers = [layer for layer in backbone.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, a=_PRELU_SLOPE)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    last = layers[-1]
    with torch.no_grad():
        features = backbone(inputs)
        spread = features.std(0).clamp_min(_LEAST_SPREAD)
        last.weight.div_(spread[:, None])
        nn.init.zeros_(last.bias).sub_(features.mean(0) / spread)  # type: ignore[arg-type]
