"""Ranks: the processes of a training run and their collectives.

Every rank computes the same loss from the gathered features of the global batch, so the gradient of its own features
is complete. ``DistributedDataParallel`` averages parameter gradients over ranks where their sum is needed; ``gather``
therefore multiplies the gradient by the number of ranks.
"""

from __future__ import annotations

import contextlib
import datetime
import gc
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from model.errors import one_line
from model.training.connect import connect, no_connection
from model.training.launch import RankError, check_alone, several_processes
from model.training.peers import Peers, watched
from shards.errors import LrfrError

T = TypeVar("T")
STEP_TIMEOUT = datetime.timedelta(minutes=10)  # to connect, and within a step
TIMEOUT = datetime.timedelta(hours=12)  # the other ranks wait while rank 0 evaluates; ``Peers`` notices a lost one


class Ranks:
    """The processes of a run, seen from this one.

    Attributes:
        rank: number of this process.
        size: number of processes.
        group: all processes; None if there is only one.
        peers: notices that another process is lost; None if there is only one.
    """

    peers: Peers | None = None

    def __init__(self, *, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.group = distributed.group.WORLD if size > 1 else None
        # NCCL collectives of the gradients' group would wait for all queued GPU work
        self._control = distributed.new_group(backend="gloo", timeout=TIMEOUT) if size > 1 else None

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

    def collect(self, work: Callable[[], T], *, on_first: bool = False) -> list[T]:
        """Runs ``work`` on every rank and returns the results of all, in rank order. A collective.

        Args:
            work: returns a small picklable value.
            on_first: for large values: only rank 0 gets the results, and learns whether one failed. Others get an empty
                list, even if ``work`` failed on them in a way that a user can cause.

        Raises:
            Exception: what ``work`` raised on this rank.
            RankError: ``work`` failed on another rank.
        """
        if self._control is None:
            return [work()]
        outcome, failure = _attempt(work)
        outcomes: list[Any] = [None] * self.size
        stated = outcome, failure and (str(failure) or type(failure).__name__)
        if not on_first:
            distributed.all_gather_object(outcomes, stated, self._control)
        elif self.first:
            distributed.gather_object(stated, outcomes, 0, self._control)
        else:
            distributed.gather_object(stated, None, 0, self._control)
            if failure is None or isinstance(failure, LrfrError | OSError):
                return []
            raise failure
        for rank, (_, message) in enumerate(outcomes):
            if message is not None:
                raise failure or RankError(f"rank {rank} failed: {message}")
        return [outcome for outcome, _ in outcomes]

    def broadcast(self, value: T | None = None) -> T | None:
        """The value of rank 0, any that can be pickled, on every rank. A collective."""
        values = [value]
        if self._control is not None:
            distributed.broadcast_object_list(values, 0, self._control)
        return values[0]

    def leave(self) -> None:
        """Says that this process waits for no other one any more: a failure ends the run, and there is work to save."""
        if self.peers is not None:
            self.peers.leave()

    def gather(self, part: torch.Tensor, views: int) -> torch.Tensor:
        """(V*b, ...) of this rank -> (V*B, ...) of all ranks, ordered as in a single process: by view, then by rank."""
        if self.group is None:
            return part
        parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(self.size)]
        distributed.all_gather(parts, part.detach().contiguous(), group=self.group)
        if part.requires_grad:
            parts[self.rank] = part.view_as(part)
            parts[self.rank].register_hook(lambda gradient: self.size * gradient)  # type: ignore[no-untyped-call]
        return torch.stack([one.reshape(views, -1, *part.shape[1:]) for one in parts], dim=1).flatten(0, 2)

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


def _attempt(work: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """The result of ``work``, or why it failed, whatever it is: the other ranks wait for an answer."""
    try:
        return work(), None
    except Exception as error:  # noqa: BLE001 (raised when the others know)
        return None, error


@contextlib.contextmanager
def open_ranks(device: str) -> Iterator[Ranks]:
    """The ranks started by ``torchrun``; a single one without it.

    Raises:
        RankError: the environment variables of ``torchrun`` are incomplete, the processes cannot connect, or another
            launcher started several; in the block, when another rank has exited.
    """
    if not several_processes():
        check_alone()
        yield Ranks()
        return
    if device.startswith("cuda"):
        torch.cuda.set_device(device)  # NCCL and the loader use the current device
    with _connected(device) as ranks:
        try:
            yield ranks
            ranks.any(False)  # a barrier: gloo has aborted ranks that left while another was still writing
        except RuntimeError as error:
            if isinstance(error, distributed.DistError) or "gloo" in str(error).lower():
                assert ranks.peers is not None
                raise RankError(_reason(error, ranks.peers.loss())) from None
            raise


def _reason(error: RuntimeError, loss: str) -> str:
    """Why a collective failed.

    Args:
        loss: which rank is lost, in words; empty if none is.
    """
    if "timed out" in str(error).lower():
        return f"another rank hangs: no data from it for {STEP_TIMEOUT.seconds:,} seconds"
    if not loss and "NCCL" in str(error):  # such as too little shared memory in a container
        return f"NCCL failed: {one_line(error)}; set NCCL_DEBUG=INFO to see more"
    return loss or "another rank has exited; see its error message"


@contextlib.contextmanager
def _connected(device: str) -> Iterator[Ranks]:
    """The process groups, and the watch over the other ranks.

    Raises:
        RankError: no connection.
    """
    try:
        backend = "nccl" if device.startswith("cuda") else "gloo"
        connect(backend, device, STEP_TIMEOUT)
        ranks = Ranks(rank=distributed.get_rank(), size=distributed.get_world_size())
        watch = contextlib.ExitStack()
        ranks.peers = watch.enter_context(watched(ranks.rank, ranks.size, ranks.broadcast))
    except (RuntimeError, ValueError, OSError) as error:
        if type(error) is RuntimeError and "gloo" not in str(error).lower():
            raise
        raise RankError(no_connection(error)) from None
    failed = True
    try:
        with watch:
            yield ranks
        failed = False
    except SystemExit:  # all ranks have been interrupted
        failed = False
        raise
    finally:
        ranks.group = ranks._control = None
        gc.collect()  # objects that hold a group, such as a reducer, must be freed before the groups
        if not (failed and backend == "nccl"):  # there it waits for the other ranks, and the error would be lost
            distributed.destroy_process_group()
