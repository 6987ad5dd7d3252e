"""Class rows sharded over the ranks of a process group, with exact sums and gradients.

Every rank receives the same global batch and computes the same loss. Therefore a sum over ranks passes its gradient
on unchanged, and the gradient of a shared tensor (the features) is the sum over ranks of the gradients through each
rank's rows. The rows' own gradients need no reduction: their rank sees the whole batch. Group ``None`` means a single
process, without any call to ``torch.distributed``.

Source: Shoeybi et al., Megatron-LM, 2019 (the conjugate operators f and g); An et al., Partial FC, CVPR 2022.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import distributed

Group = distributed.ProcessGroup


def shard_bounds(count: int, group: Group | None, rank: int | None = None) -> tuple[int, int]:
    """First row of ``rank`` (default: this rank) and one past its last.

    Blocks are contiguous, in rank order; the first may be longer by 1.
    """
    if group is None:
        return 0, count
    rank = distributed.get_rank(group) if rank is None else rank
    rows, remainder = divmod(count, distributed.get_world_size(group))
    start = rank * rows + min(rank, remainder)
    return start, start + rows + (rank < remainder)


def gather_rows(block: torch.Tensor, count: int, group: Group, *, keep: bool = True) -> torch.Tensor:
    """Gathers the blocks of all ranks. A collective: all ranks call it.

    Device memory needs room for one block at a time.

    Args:
        block: (rows of this rank, ...).
        count: rows of all ranks together.
        keep: this rank needs the result; one that does not saves the memory.

    Returns:
        (count, ...) on the CPU; (0, ...) if it is not kept.
    """
    rank = distributed.get_rank(group)
    whole = torch.empty(count if keep else 0, *block.shape[1:], dtype=block.dtype)
    for owner in range(distributed.get_world_size(group)):
        start, stop = shard_bounds(count, group, owner)
        rows = block.detach().contiguous() if owner == rank else block.new_empty(stop - start, *block.shape[1:])
        distributed.broadcast(rows, distributed.get_global_rank(group, owner), group)
        if keep:
            whole[start:stop] = rows
        del rows  # before the next block is allocated
    return whole


class _Context(Protocol):
    """What the forward pass leaves for the backward pass."""

    group: Group


class _AllReduceGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Context, shared: torch.Tensor, group: Group) -> torch.Tensor:
        ctx.group = group
        return shared.view_as(shared)

    @staticmethod
    def backward(ctx: _Context, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(gradient, group=ctx.group)
        return gradient, None


class _AllReduceSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, part: torch.Tensor, group: Group) -> torch.Tensor:
        whole = part.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(whole, group=group)
        return whole

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient, None


def all_reduce_gradient(shared: torch.Tensor, group: Group | None) -> torch.Tensor:
    """Returns ``shared``, the same on every rank, and sums its gradient over the ranks in the backward pass."""
    return shared if group is None else _AllReduceGradient.apply(shared, group)  # type: ignore[no-untyped-call]


def all_reduce_sum(part: torch.Tensor, group: Group | None) -> torch.Tensor:
    """Sums ``part`` over the ranks and passes the gradient on unchanged."""
    return part if group is None else _AllReduceSum.apply(part, group)  # type: ignore[no-untyped-call]


def log_sum_exp(values: torch.Tensor, group: Group | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-sum-exp over the columns of all ranks, as two terms to add: the maximum and the rest.

    A loss subtracts its target from the maximum before it adds the rest, which loses fewer digits.

    Args:
        values: (N, K) columns of this rank; K may be 0.

    Returns:
        (N,) maximum, without gradient, and (N,) rest. A row whose values are all -inf has maximum 0 and rest -inf.
    """
    blank = values.new_full((len(values),), -torch.inf)
    peak = values.detach().amax(1) if values.shape[1] else blank
    if group is not None:
        distributed.all_reduce(peak, distributed.ReduceOp.MAX, group)
    peak = peak.masked_fill(peak == -torch.inf, 0.0)
    return peak, all_reduce_sum((values - peak[:, None]).exp().sum(1), group).log()
