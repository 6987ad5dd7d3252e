"""Optimizers by name, with fused kernels. Weight decay applies to all weights, as in the reference."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import nn

from model.options import OptionError, Options, Registry, option


class OptimizerOptions(Options):
    """Options of an optimizer."""

    kind = "optimizer"
    optimizer: ClassVar[type[torch.optim.Optimizer]]
    buffers: ClassVar[frozenset[str]]  # names of the state of each weight

    def arguments(self) -> dict[str, Any]:
        """The options as arguments of ``optimizer``."""
        return self.values()

    def build(self, parameters: Iterable[nn.Parameter], *, lr: float, weight_decay: float) -> torch.optim.Optimizer:
        """The optimizer of ``parameters``."""
        arguments: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay, "fused": True, **self.arguments()}
        return self.optimizer(parameters, **arguments)


class SGDOptions(OptimizerOptions):
    """Stochastic gradient descent."""

    name = "sgd"
    optimizer = torch.optim.SGD
    buffers = frozenset({"momentum_buffer"})
    momentum: float = option(0.9, max=1, help="momentum factor")
    nesterov: bool = option(False, help="Nesterov momentum")

    def check(self) -> None:
        if self.nesterov and not self.momentum:
            raise OptionError("optimizer sgd: nesterov needs a momentum above 0; leave it out")


class AdamWOptions(OptimizerOptions):
    """Adam with decoupled weight decay."""

    name = "adamw"
    optimizer = torch.optim.AdamW
    buffers = frozenset({"step", "exp_avg", "exp_avg_sq"})
    beta1: float = option(0.9, max=1, max_open=True, help="decay of the mean gradient")
    beta2: float = option(0.999, max=1, max_open=True, help="decay of the mean squared gradient")

    def arguments(self) -> dict[str, Any]:
        return {"betas": (self.beta1, self.beta2)}


OPTIMIZERS: Registry[OptimizerOptions] = Registry(SGDOptions, AdamWOptions)
