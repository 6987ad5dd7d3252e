"""Class rows over the ranks of a process group: who holds which, and sums and gradients exact over all of them.

The convention for gradients: every rank is given the same global batch and computes the same loss from it. A sum over
ranks therefore passes its gradient on as it is, and the gradient of what all ranks share (the features) is the sum of
what came back through each rank's rows. Rows need no reduction: their rank has seen the whole batch. Group ``None``
stands for a single process; nothing of ``torch.distributed`` is then called.

Source: Shoeybi et al., Megatron-LM, 2019 (the conjugate operators f and g); An et al., Partial FC, CVPR 2022.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed

Group = distributed.ProcessGroup


def shard_bounds(count: int, group: Group | None) -> tuple[int, int]:
    """First row of this rank, and one past its last: contiguous blocks in rank order, longer by one in the first ranks."""
    if group is None:
        return 0, count
    return _bounds(count, distributed.get_world_size(group), distributed.get_rank(group))


def _bounds(count: int, world: int, rank: int) -> tuple[int, int]:
    each, rest = divmod(count, world)
    start = rank * each + min(rank, rest)
    return start, start + each + (rank < rest)


def gather_rows(block: torch.Tensor, count: int, group: Group) -> torch.Tensor:
    """Every rank's block of rows -> all ``count`` rows on the CPU, on every rank. A collective: all ranks call it.

    One block at a time passes through device memory, which need not hold the whole.
    """
    world, rank, blocks = distributed.get_world_size(group), distributed.get_rank(group), []
    for owner in range(world):
        start, stop = _bounds(count, world, owner)
        rows = block.detach().clone() if owner == rank else block.new_empty(stop - start, *block.shape[1:])
        distributed.broadcast(rows, distributed.get_global_rank(group, owner), group)
        blocks.append(rows.cpu())
    return torch.cat(blocks)


class _CompleteGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, shared: torch.Tensor, group: Group) -> torch.Tensor:
        ctx.group = group
        return shared.view_as(shared)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(gradient, group=ctx.group)
        return gradient, None


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: torch.Tensor, group: Group) -> torch.Tensor:
        whole = part.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(whole, group=group)
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient, None


def complete_gradient(shared: torch.Tensor, group: Group | None) -> torch.Tensor:
    """``shared`` itself, the same on every rank; its gradient is summed over the ranks."""
    return shared if group is None else _CompleteGradient.apply(shared, group)  # type: ignore[no-untyped-call]


def total(part: torch.Tensor, group: Group | None) -> torch.Tensor:
    """The sum of every rank's ``part``; the gradient passes as it is."""
    return part if group is None else _Total.apply(part, group)  # type: ignore[no-untyped-call]


def log_sum_exp(values: torch.Tensor, group: Group | None) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, K) -> (N,) ``peak`` without gradient and (N,) ``rest``: log sum exp over all ranks' columns is their sum.

    They are apart because a loss subtracts its target from the peak first, which loses fewer digits. K may be 0 on some
    ranks; a row of nothing but -inf has peak 0 and rest -inf.
    """
    blank = values.new_full((len(values),), -torch.inf)
    peak = values.detach().amax(1) if values.shape[1] else blank
    if group is not None:
        distributed.all_reduce(peak, distributed.ReduceOp.MAX, group)
    peak = peak.masked_fill(peak == -torch.inf, 0.0)
    return peak, total((values - peak[:, None]).exp().sum(1), group).log()
