"""The processes of one training run, and what they tell each other.

The convention for gradients: every rank computes the same loss from the features of the whole batch. The gradient of
its own part of them is therefore complete, and ``DistributedDataParallel``, which averages over ranks where the sum is
wanted, is given it times the number of ranks.
"""

from __future__ import annotations

import contextlib
import datetime
import gc
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from shards.errors import LrfrError

_PATIENCE = datetime.timedelta(
    hours=12
)  # others wait this long for rank 0 to evaluate; a dead rank is seen by torchrun


class RankError(LrfrError):
    """Another process of the run is gone. One line."""


class Ranks:
    """This process among those of a run.

    Attributes:
        rank, size: its number, and how many there are.
        group: all of them; None if there is one.
    """

    def __init__(self, *, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.group = distributed.group.WORLD if size > 1 else None
        # apart from the gradients' group: on a GPU that one would have to wait for all queued work
        self._control = distributed.new_group(backend="gloo", timeout=_PATIENCE) if size > 1 else None

    def close(self) -> None:
        """Lets go of the groups; nothing can be told or gathered any more."""
        self.group = self._control = None

    @property
    def first(self) -> bool:
        """True for the one that logs, saves and evaluates."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether it is so in any process. A collective: all ranks call it."""
        if self._control is None:
            return flag
        told = torch.tensor(int(flag))
        distributed.all_reduce(told, distributed.ReduceOp.MAX, self._control)
        return bool(told)

    def gather(self, part: torch.Tensor, views: int) -> torch.Tensor:
        """(V*b, ...) of this rank -> (V*B, ...) of all, as one process would have them: view after view, ranks in order."""
        return part if self.group is None else _Gather.apply(part, views, self.size, self.group)  # type: ignore[no-untyped-call]

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """The mean of every rank's ``value``; without gradient."""
        if self.group is None:
            return value
        whole = value.detach().clone()
        distributed.all_reduce(whole, group=self.group)
        return whole / self.size

    def parallel(self, learner: nn.Module, own: tuple[str, ...]) -> nn.Module:
        """``learner`` with gradients reduced over the ranks; ``own`` are prefixes of what is this rank's alone."""
        if self.group is None:
            return learner
        names = [name for name, _ in [*learner.named_parameters(), *learner.named_buffers()] if name.startswith(own)]
        # no public way leaves out what is this rank's alone
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(learner, names)  # type: ignore[no-untyped-call]
        return DistributedDataParallel(learner, gradient_as_bucket_view=True)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: torch.Tensor, views: int, size: int, group: Any) -> torch.Tensor:
        ctx.views, ctx.size, ctx.rank = views, size, distributed.get_rank(group)
        parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(size)]
        distributed.all_gather(parts, part.contiguous(), group=group)
        return torch.stack([one.reshape(views, -1, *part.shape[1:]) for one in parts], dim=1).flatten(0, 2)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        ranks = gradient.reshape(ctx.views, ctx.size, -1, *gradient.shape[1:])
        return ctx.size * ranks[:, ctx.rank].flatten(0, 1), None, None, None


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation over all ranks on a CPU, where PyTorch has none; ``nn.SyncBatchNorm`` does it on GPUs."""

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Takes (N, C, ...)."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(input)
        across = [0, *range(2, input.dim())]
        shape = [1, -1] + [1] * (input.dim() - 2)
        count = input.new_tensor(float(input.numel() // input.shape[1]))
        distributed.all_reduce(count)
        mean = _AllSum.apply(input.sum(across)) / count  # type: ignore[no-untyped-call]
        centred = input - mean.reshape(shape)
        variance = _AllSum.apply(centred.square().sum(across)) / count  # type: ignore[no-untyped-call]
        with torch.no_grad():
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            self.running_mean.lerp_(mean, self.momentum)  # type: ignore[union-attr, arg-type]
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)  # type: ignore[union-attr, arg-type]
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return centred * scale.reshape(shape) + self.bias.reshape(shape)


class _AllSum(torch.autograd.Function):
    """The sum over ranks; its gradient is the sum over ranks, too."""

    @staticmethod
    def forward(ctx: Any, part: torch.Tensor) -> torch.Tensor:
        whole = part.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(gradient)
        return gradient


def batch_norm_over(ranks: Ranks, module: nn.Module, device: str) -> nn.Module:
    """``module`` with batch statistics of the whole batch, so that they do not depend on the number of ranks."""
    if ranks.group is None:
        return module
    if device.startswith("cuda"):
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
    for child in module.modules():
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
            child.__class__ = GlobalBatchNorm  # type: ignore[assignment]
    return module


@contextlib.contextmanager
def open_ranks(device: str) -> Iterator[Ranks]:
    """The ranks that ``torchrun`` started, this process one of them; one alone without it.

    Raises:
        RankError: in the block, as soon as another process is found gone.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    backend = "gloo"
    if device.startswith("cuda"):
        backend = "nccl"
        torch.cuda.set_device(device)  # where NCCL and the loader look
    distributed.init_process_group(backend, timeout=_PATIENCE)
    ranks = Ranks(rank=distributed.get_rank(), size=distributed.get_world_size())
    try:
        yield ranks
        ranks.any(False)  # nobody leaves while another still writes: gloo has aborted processes that did
    except RuntimeError as error:
        if isinstance(error, distributed.DistError) or "gloo" in str(error).lower():
            raise RankError("another process of the run is gone; its own line says why") from None
        raise
    finally:
        ranks.close()
        gc.collect()  # what still holds a group, such as a learner's reducer, goes before the groups do
        distributed.destroy_process_group()


def local_device(device: str) -> str:
    """``cuda`` as the GPU of this process among those of its machine."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" and "LOCAL_RANK" in os.environ else device
