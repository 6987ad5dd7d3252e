"""PReLU for training on a CPU: the same sums as PyTorch's, whose backward pass there takes a tenth of a step."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

_AT_ONCE = 1 << 19  # elements of a piece: what is made of it stays in the cache


class PReLU(nn.PReLU):
    """``nn.PReLU`` with a slope a channel for (N, C, ...); its backward pass takes some images at a time.

    PyTorch's kernel writes a slope's gradient for every element, to be summed later, and branches on every element's sign.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, ...) float, keeps the shape; compiled, it is PyTorch's, which the compiler fuses with its neighbours."""
        if torch.compiler.is_compiling():
            return super().forward(x)
        return _Pieces.apply(x, self.weight)  # type: ignore[no-untyped-call]


class _Pieces(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, slopes)
        return functional.prelu(x, slopes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, slopes = ctx.saved_tensors
        by_channel = slopes.to(gradient.dtype).view(1, -1, *[1] * (x.dim() - 2))
        others = [axis for axis in range(x.dim()) if axis != 1]
        of_x, of_slopes = torch.empty_like(gradient), torch.zeros_like(slopes)
        images = max(1, _AT_ONCE // max(1, x[:1].numel()))
        pieces = (torch.split(whole, images) for whole in (of_x, gradient, x))
        for out, above, value in zip(*pieces, strict=True):
            positive = torch.ops.aten.threshold_backward(above, value, 0)  # 0 where the value is not above 0
            negative = above - positive
            torch.addcmul(positive, negative, by_channel, out=out)
            of_slopes += negative.mul_(value).sum(others, dtype=slopes.dtype)
        return of_x, of_slopes


def prelu_in_pieces(network: nn.Module) -> nn.Module:
    """Makes every ``nn.PReLU`` of ``network`` with a slope a channel a ``PReLU``; parameters and their names stay."""
    for child in network.modules():
        if type(child) is nn.PReLU and child.num_parameters > 1:
            child.__class__ = PReLU
    return network
