"""Data-dependent initialisation: a start from which plain networks without normalisation layers learn at once."""

from __future__ import annotations

import torch
from torch import nn

_PRELU_SLOPE = 0.25  # PyTorch's initial one
_LEAST_SPREAD = 1e-3
_SPREAD = 5.0  # deviation of an embedding's dimension at the start


def initialise_from_data(backbone: nn.Module, head: nn.Module, inputs: torch.Tensor) -> None:
    """He weights without biases; embeddings centred on ``inputs`` with deviation 5; the head's rows of unit length.

    From PyTorch's defaults all faces start with nearly the same embedding, and one update then moves all of them
    together further than they lie apart: the last layer sees thousands of activations with a large common part, so
    its step is large against a short embedding. Long centred embeddings take small turns and start far apart; the
    head's rows, which are long by default, take larger ones.

    Args:
        head: its ``weight`` is (classes, features).
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
        scale = _SPREAD / features.std(0).clamp_min(_LEAST_SPREAD)
        last.weight.mul_(scale[:, None])
        nn.init.zeros_(last.bias).sub_(features.mean(0) * scale)  # type: ignore[arg-type]
        head.weight.copy_(nn.functional.normalize(head.weight))  # type: ignore[operator, arg-type]
