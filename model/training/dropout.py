"""Dropout whose masks do not depend on the number of ranks."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from model.training.ranks import Ranks


class GlobalDropout(nn.Dropout):
    """Dropout that draws the mask of the whole batch, as a single process does, and applies this rank's part of it.

    All ranks need the same random state. The input of a rank is (V*b, ...), view after view.
    """

    rank: int
    size: int
    views: int

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0:
            return input
        channels_last = input.dim() == 4 and input.is_contiguous(memory_format=torch.channels_last)
        whole = torch.ones(
            (self.size * len(input), *input.shape[1:]),
            dtype=input.dtype,
            device=input.device,
        ).contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        masks = functional.dropout(whole, self.p).reshape(self.views, self.size, -1, *input.shape[1:])
        return (input.reshape(self.views, -1, *input.shape[1:]) * masks[:, self.rank]).flatten(0, 1)


def global_dropout(ranks: Ranks, module: nn.Module, views: int) -> nn.Module:
    """``module`` with dropout masks of the global batch, whose images have ``views`` views."""
    if ranks.group is None:
        return module
    for child in module.modules():
        if type(child) is nn.Dropout:
            child.__class__ = GlobalDropout
            child.rank, child.size, child.views = ranks.rank, ranks.size, views  # type: ignore[assignment]
    return module
