"""Optimizers by name, in fused kernels, which read and write memory once. Weight decay is on all weights, as in the reference."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from model.options import OptionError, Options, by_name, option, parse_options


class OptimizerOptions(Options):
    """Options of an optimizer."""

    kind = "optimizer"

    def build(self, parameters: Iterable[nn.Parameter], *, lr: float, weight_decay: float) -> torch.optim.Optimizer:
        """The optimizer of ``parameters``."""
        raise NotImplementedError


class SGDOptions(OptimizerOptions):
    """Stochastic gradient descent."""

    name = "sgd"
    momentum: float = option(0.9, max=1.0, help="weight of the last update in this one")
    nesterov: bool = option(False, help="Nesterov momentum")

    def check(self) -> None:
        if self.nesterov and not self.momentum:
            raise OptionError("optimizer sgd: nesterov needs a momentum above 0; leave it out")

    def build(self, parameters: Iterable[nn.Parameter], *, lr: float, weight_decay: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            parameters,
            lr=lr,
            weight_decay=weight_decay,
            momentum=self.momentum,
            nesterov=self.nesterov,
            fused=True,
        )


class AdamWOptions(OptimizerOptions):
    """Adam with decoupled weight decay."""

    name = "adamw"
    beta1: float = option(0.9, max=1.0, max_open=True, help="decay of the mean gradient")
    beta2: float = option(0.999, max=1.0, max_open=True, help="decay of the mean squared gradient")

    def build(self, parameters: Iterable[nn.Parameter], *, lr: float, weight_decay: float) -> torch.optim.Optimizer:
        betas = (self.beta1, self.beta2)
        return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, betas=betas, fused=True)


OPTIMIZERS: dict[str, type[OptimizerOptions]] = by_name(SGDOptions, AdamWOptions)


def parse_optimizer(text: str) -> OptimizerOptions:
    """Reads text such as ``sgd:momentum=0.9``. Raises: OptionError, ChoiceError: see ``parse_options``."""
    return parse_options(text, OPTIMIZERS)
