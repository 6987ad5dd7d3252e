"""Exponential moving average of a backbone's weights and batch statistics."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]


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
        self.multi_avg_fn = self._update

    def _update(self, averages: Tensors, values: Tensors, _: torch.Tensor | int) -> None:
        # the buffer is on the CPU: reading the argument would synchronise with a GPU
        decay = averaged_decay(self._decay, int(self.n_averaged))
        get_ema_multi_avg_fn(decay)(averages, values, None)  # type: ignore[no-untyped-call]
