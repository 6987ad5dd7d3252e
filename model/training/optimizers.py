"""Optimizers by name."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from model.choice import Choice
from model.options import Option, OptionError, checked

OPTIMIZERS: dict[str, dict[str, Option]] = {
    "sgd": {
        "momentum": Option(default=0.9, most=1.0, about="share of the last update in this one"),
        "nesterov": Option(default=False, about="look ahead along the momentum"),
    },
    "adamw": {
        "beta1": Option(default=0.9, most=1.0, about="decay of the mean gradient"),
        "beta2": Option(default=0.999, most=1.0, about="decay of the mean squared gradient"),
    },
}


def resolved_optimizer(choice: Choice) -> Choice:
    """The choice with all its options. Raises: OptionError: unknown optimizer or option, or a value out of range."""
    if choice.name not in OPTIMIZERS:
        raise OptionError(f"optimizer {choice.name!r} is unknown; choose from {', '.join(OPTIMIZERS)}")
    return Choice(choice.name, checked(f"optimizer {choice.name}", OPTIMIZERS[choice.name], choice.options))


def build_optimizer(
    choice: Choice, parameters: Iterable[nn.Parameter], *, lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """The optimizer of all ``parameters`` that take a gradient, in fused kernels: memory is read and written once.

    Weight decay is on everything, as in the reference.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    options = choice.options
    if choice.name == "sgd":
        return torch.optim.SGD(trained, lr=lr, weight_decay=weight_decay, fused=True, **options)
    betas = (options["beta1"], options["beta2"])
    return torch.optim.AdamW(trained, lr=lr, weight_decay=weight_decay, fused=True, betas=betas)
