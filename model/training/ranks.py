"""Ranks: the processes of a training run and their collectives.

Every rank computes the same loss from the gathered features of the global batch, so the gradient of its own features
is complete. ``DistributedDataParallel`` averages parameter gradients over ranks where their sum is needed; ``gather``
therefore multiplies the gradient by the number of ranks.
"""

from __future__ import annotations

import contextlib
import datetime
import gc
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from shards.errors import LrfrError

T = TypeVar("T")
TIMEOUT = datetime.timedelta(hours=12)  # the other ranks wait while rank 0 evaluates; torchrun detects a dead rank


class RankError(LrfrError):
    """Another rank has failed."""


class Ranks:
    """The processes of a run, seen from this one.

    Attributes:
        rank: number of this process.
        size: number of processes.
        group: all processes; None if there is only one.
    """

    def __init__(self, *, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.group = distributed.group.WORLD if size > 1 else None
        # NCCL collectives of the gradients' group would wait for all queued GPU work
        self._control = distributed.new_group(backend="gloo", timeout=TIMEOUT) if size > 1 else None

    def close(self) -> None:
        """Releases the process groups; collectives must not be called afterwards."""
        self.group = self._control = None

    @property
    def first(self) -> bool:
        """True for the rank that logs, saves and evaluates."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """True if ``flag`` is true on any rank. A collective."""
        if self._control is None:
            return flag
        flags = torch.tensor(int(flag))
        distributed.all_reduce(flags, distributed.ReduceOp.MAX, self._control)
        return bool(flags)

    def collect(self, work: Callable[[], T]) -> list[T]:
        """Runs ``work`` on every rank and returns the results of all, in rank order. A collective.

        Args:
            work: returns a small picklable value.

        Raises:
            LrfrError, OSError: ``work`` failed on this rank.
            RankError: ``work`` failed on another rank.
        """
        outcome: T | None = None
        failure: LrfrError | OSError | None = None
        try:
            outcome = work()
        except (LrfrError, OSError) as error:
            failure = error
        outcomes: list[Any] = [(outcome, str(failure) if failure else None)] * self.size
        if self._control is not None:
            distributed.all_gather_object(outcomes, outcomes[0], self._control)
        if failure is not None:
            raise failure
        for rank, (_, message) in enumerate(outcomes):
            if message is not None:
                raise RankError(f"rank {rank} failed: {message}")
        return [value for value, _ in outcomes]

    def gather(self, part: torch.Tensor, views: int) -> torch.Tensor:
        """(V*b, ...) of this rank -> (V*B, ...) of all ranks, ordered as in a single process: by view, then by rank."""
        return part if self.group is None else _Gather.apply(part, views, self.size, self.group)  # type: ignore[no-untyped-call]

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """The mean of ``value`` over all ranks, without gradient. A collective."""
        if self.group is None:
            return value
        total = value.detach().clone()
        distributed.all_reduce(total, group=self.group)
        return total / self.size

    def parallel(self, learner: nn.Module, rank_local_prefixes: tuple[str, ...]) -> nn.Module:
        """``learner`` with gradients reduced over the ranks, except for parameters with these name prefixes."""
        if self.group is None:
            return learner
        tensors = [*learner.named_parameters(), *learner.named_buffers()]
        names = [name for name, _ in tensors if name.startswith(rank_local_prefixes)]
        # there is no public way to exclude parameters
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
    """Batch normalisation over all ranks on CPUs, which ``nn.SyncBatchNorm`` does not support.

    Statistics and output are computed in the precision of the parameters; the output has the dtype of the input.
    """

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """(N, C, ...) of any number of dimensions."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(input)
        x = input.to(self.weight.dtype)
        axes = [0, *range(2, x.dim())]
        shape = [1, -1] + [1] * (x.dim() - 2)
        count = x.new_tensor(float(x.numel() // x.shape[1]))
        distributed.all_reduce(count)
        mean = _AllSum.apply(x.sum(axes)) / count  # type: ignore[no-untyped-call]
        centred = x - mean.reshape(shape)
        variance = _AllSum.apply(centred.square().sum(axes)) / count  # type: ignore[no-untyped-call]
        with torch.no_grad():
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            self.running_mean.lerp_(mean, self.momentum)  # type: ignore[union-attr, arg-type]
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)  # type: ignore[union-attr, arg-type]
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale.reshape(shape) + self.bias.reshape(shape)).to(input.dtype)


class _AllSum(torch.autograd.Function):
    """The sum over ranks; its gradient is also summed over ranks."""

    @staticmethod
    def forward(ctx: Any, part: torch.Tensor) -> torch.Tensor:
        total = part.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(gradient)
        return gradient


def global_batch_norm(ranks: Ranks, module: nn.Module, device: str) -> nn.Module:
    """``module`` with statistics of the global batch, so that results do not depend on the number of ranks."""
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
    """The ranks started by ``torchrun``; a single one without it.

    Raises:
        RankError: in the block, when another rank has exited.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    backend = "gloo"
    if device.startswith("cuda"):
        backend = "nccl"
        torch.cuda.set_device(device)  # NCCL and the loader use the current device
    distributed.init_process_group(backend, timeout=TIMEOUT)
    ranks = Ranks(rank=distributed.get_rank(), size=distributed.get_world_size())
    try:
        yield ranks
        ranks.any(False)  # a barrier: gloo has aborted ranks that left while another was still writing
    except RuntimeError as error:
        if isinstance(error, distributed.DistError) or "gloo" in str(error).lower():
            raise RankError("another rank has exited; see its error message") from None
        raise
    finally:
        ranks.close()
        gc.collect()  # objects that hold a group, such as a reducer, must be freed before the groups
        distributed.destroy_process_group()


def local_device(device: str) -> str:
    """``cuda`` -> the GPU of this process, by its rank on the machine."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" and "LOCAL_RANK" in os.environ else device
