"""Exponential moving average of a backbone's weights and batch statistics."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def averaged_decay(decay: float, updates: int) -> float:
    """The decay of an average that has ``updates`` updates behind it: it rises to ``decay``.

    A constant decay of 0.9995 would leave the random start in the average for thousands of steps.

    Source: ``tf.train.ExponentialMovingAverage`` with ``num_updates``.
    """
    return min(decay, (1 + updates) / (10 + updates))


class MovingAverage(AveragedModel):
    """The moving average of ``backbone``, which starts as a copy of its weights after the first update."""

    def __init__(self, backbone: nn.Module, decay: float) -> None:
        super().__init__(backbone, use_buffers=True)  # type: ignore[no-untyped-call]
        self._decay = decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Moves the averages towards ``model``.

        PyTorch's copies ``n_averaged`` to the device in every update, for which the host waits until a GPU has finished.
        """
        updates = int(self.n_averaged)  # the buffer is on the CPU
        average = get_ema_multi_avg_fn(averaged_decay(self._decay, updates))  # type: ignore[no-untyped-call]
        for floats in (True, False):
            averages, values = (
                [one for one in _tensors(module) if one.is_floating_point() == floats]
                for module in (self.module, model)
            )
            if averages and updates:
                average(averages, values, None)
            elif averages:
                torch._foreach_copy_(averages, values)
        self.n_averaged += 1


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    """All weights and buffers."""
    return [one.detach() for one in (*module.parameters(), *module.buffers())]
