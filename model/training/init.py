"""Initial weights of backbones: those of other projects, or fitted to the first batch."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import nn

PRELU_SLOPE = 0.25  # PyTorch's initial value
EMBEDDING_STD = 5.0  # initial standard deviation of each embedding dimension
MIN_STD = 1e-3

_Draw = Callable[[torch.Tensor], torch.Tensor]
_KAIMING: _Draw = functools.partial(nn.init.kaiming_normal_, mode="fan_out", nonlinearity="relu")
_DRAWS: dict[str, tuple[_Draw, _Draw | None]] = {  # of convolutions, and of linear layers (None: PyTorch's)
    "insightface": (functools.partial(nn.init.normal_, std=0.1), None),
    "adaface": (_KAIMING, _KAIMING),
    "reference": (nn.init.xavier_uniform_, nn.init.xavier_uniform_),
}


def initialise_as(project: str, backbone: nn.Module) -> None:
    """Draws initial weights as another project does for its IR networks; biases that it draws for are 0.

    Args:
        project: ``insightface`` (convolutions normal with deviation 0.1, linear layers as PyTorch's), ``adaface``
            (Kaiming, normal, by outputs) or ``reference`` (Xavier, uniform; of Lai & Lam).
    """
    convolution, linear = _DRAWS[project]
    for layer in backbone.modules():
        draw = convolution if isinstance(layer, nn.Conv2d) else linear if isinstance(layer, nn.Linear) else None
        if draw is not None:
            draw(layer.weight)  # type: ignore[arg-type]
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


def initialise_from_data(backbone: nn.Module, head: nn.Module, inputs: torch.Tensor) -> None:
    """Weights from which plain networks without normalisation layers learn immediately.

    He weights and zero biases; embeddings centred on ``inputs`` with standard deviation 5; unit-length head weights.

    With PyTorch's defaults all faces start with nearly the same embedding, and an update moves all embeddings together,
    further than the distances between them: the activations before the last layer have a large common part. Long,
    centred embeddings start far apart and turn slowly; unit-length head weights turn faster than long ones.

    Args:
        head: its ``weight`` is (classes, features).
        inputs: (N, 3, S, S) float, a batch of network inputs, N > 1.

    Source: He et al., ICCV 2015; for the last layer only: Mishkin & Matas, All you need is a good init, ICLR 2016.
    """
    layers = [layer for layer in backbone.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    last = layers[-1]
    with torch.no_grad():
        for layer in layers:
            # drawn on the CPU: two kinds of GPU draw different numbers, and every process needs the same
            layer.weight.copy_(nn.init.kaiming_normal_(torch.empty_like(layer.weight, device="cpu"), a=PRELU_SLOPE))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        training = backbone.training
        features = backbone.eval()(inputs)  # the masks of dropout differ from rank to rank
        backbone.train(training)
        scale = EMBEDDING_STD / features.std(0).clamp_min(MIN_STD)
        last.weight.mul_(scale[:, None])
        nn.init.zeros_(last.bias).sub_(features.mean(0) * scale)  # type: ignore[arg-type]
        head.weight.copy_(nn.functional.normalize(head.weight))  # type: ignore[operator, arg-type]
