"""PReLU with a faster backward pass on CPUs, where PyTorch's takes a tenth of a training step."""

from __future__ import annotations

import torch
from torch import nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional

CHUNK_ELEMENTS = 1 << 19  # intermediate results of a chunk stay in the CPU's cache


class PReLU(nn.PReLU):
    """``nn.PReLU`` with a slope per channel for (N, C, ...); its backward pass works on a few images at a time.

    PyTorch's kernel stores a slope gradient for every element before it sums them, and branches on the sign of every
    element.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, ...) float -> same shape. ``torch.compile`` gets PyTorch's operator, which it can fuse."""
        if torch.compiler.is_compiling():
            return super().forward(x)
        return _ChunkedPReLU.apply(x, self.weight)  # type: ignore[no-untyped-call]


class _ChunkedPReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, slopes)
        return functional.prelu(x, slopes)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, slopes = ctx.saved_tensors  # type: ignore[attr-defined]
        channel_slopes = slopes.to(grad.dtype).view(1, -1, *[1] * (x.dim() - 2))
        other_axes = [axis for axis in range(x.dim()) if axis != 1]
        x_grad, slope_grad = torch.empty_like(grad), torch.zeros_like(slopes)
        images = max(1, CHUNK_ELEMENTS // max(1, x[:1].numel()))
        chunks = (torch.split(whole, images) for whole in (x_grad, grad, x))
        for x_grad_chunk, grad_chunk, x_chunk in zip(*chunks, strict=True):
            positive = torch.ops.aten.threshold_backward(grad_chunk, x_chunk, 0)  # 0 where x <= 0
            negative = grad_chunk - positive
            torch.addcmul(positive, negative, channel_slopes, out=x_grad_chunk)
            slope_grad += negative.mul_(x_chunk).sum(other_axes, dtype=slopes.dtype)
        return x_grad, slope_grad


def use_chunked_prelu(network: nn.Module) -> nn.Module:
    """Turns every ``nn.PReLU`` with a slope per channel into a ``PReLU``; parameter names stay the same."""
    for child in network.modules():
        if type(child) is nn.PReLU and child.num_parameters > 1:
            child.__class__ = PReLU
    return network
