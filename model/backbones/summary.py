"""Parameters and multiply-adds of backbones, computed on the meta device without memory for weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from model.backbones import BACKBONES, build_backbone

# They have no multiply-adds and keep the shape, but would take half of the time on the meta device
_LEFT_OUT = {functional.batch_norm, functional.layer_norm, functional.prelu, functional.relu}


class _WithoutNorms(TorchFunctionMode):
    """Leaves normalisation and activations out of a forward pass of which only the shapes matter."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping | None = None
    ) -> Any:
        return args[0] if func in _LEFT_OUT else func(*args, **kwargs or {})


class Cost(NamedTuple):
    """Size and compute of a backbone.

    Attributes:
        parameters: number of learned values.
        multiply_adds: of convolutions and matrix products, for one image.
    """

    parameters: int
    multiply_adds: int


def backbone_cost(name: str, *, image_size: int = 128, **options: object) -> Cost:
    """The cost of a backbone, with the arguments of ``build_backbone``. Raises: OptionError: see ``check_backbone``."""
    with torch.device("meta"):
        backbone = build_backbone(name, image_size=image_size, **options).eval()
        image = torch.empty(1, 3, image_size, image_size)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter, _WithoutNorms():
        backbone(image)
    return Cost(
        parameters=sum(parameter.numel() for parameter in backbone.parameters()),
        multiply_adds=counter.get_total_flops() // 2,  # a multiply-add is two operations
    )


def backbone_table() -> str:
    """All backbones with their default options and their cost at 128 px, one per line of aligned text."""
    rows = [("name", "family", "parameters (M)", "multiply-adds (G)", "source")]
    for name, backbone in BACKBONES.items():
        cost = backbone_cost(name)
        parameters, multiply_adds = f"{cost.parameters / 1e6:.2f}", f"{cost.multiply_adds / 1e9:.2f}"
        rows.append((name, backbone.family, parameters, multiply_adds, backbone.source))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, "<<>><", widths, strict=True)).rstrip()
        for row in rows
    )
