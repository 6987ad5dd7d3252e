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
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from model.errors import one_line
from model.training.connect import connect, no_connection
from model.training.peers import Peers, watched
from shards.errors import LrfrError
from shards.messages import print_stderr

T = TypeVar("T")
_LAUNCHED = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")  # processes that MPI or srun started
_HINT = "start several with torchrun (in Slurm: srun torchrun, one task a node)"
STEP_TIMEOUT = datetime.timedelta(
    minutes=10
)  # to connect, and within a step, where they wait for each other's data alone
TIMEOUT = datetime.timedelta(hours=12)  # the other ranks wait while rank 0 evaluates; ``Peers`` notices a lost one


class RankError(LrfrError):
    """Another rank has failed."""


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

    def collect(self, work: Callable[[], T]) -> list[T]:
        """Runs ``work`` on every rank and returns the results of all, in rank order. A collective.

        Args:
            work: returns a small picklable value.

        Raises:
            Exception: what ``work`` raised on this rank.
            RankError: ``work`` failed on another rank.
        """
        if self._control is None:
            return [work()]
        outcome, failure = _attempt(work)
        outcomes: list[Any] = [None] * self.size
        distributed.all_gather_object(outcomes, (outcome, _message(failure)), self._control)
        return _successes(outcomes, failure)

    def collect_on_first(self, work: Callable[[], T]) -> list[T]:
        """As ``collect``, for large values: only rank 0 gets the results of all, and learns whether one failed.

        Returns:
            On other ranks an empty list, even if ``work`` failed on them in a way that a user can cause.
        """
        if self._control is None:
            return [work()]
        outcome, failure = _attempt(work)
        outcomes: list[Any] | None = [None] * self.size if self.first else None
        distributed.gather_object((outcome, _message(failure)), outcomes, 0, self._control)
        if outcomes is not None:
            return _successes(outcomes, failure)
        if failure is None or isinstance(failure, LrfrError | OSError):
            return []
        raise failure

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


def _message(failure: Exception | None) -> str | None:
    return None if failure is None else str(failure) or type(failure).__name__


def _successes(outcomes: list[Any], failure: Exception | None) -> list[Any]:
    """The results of all ranks, from pairs of a result and a message. Raises: ``failure``, RankError: one failed."""
    for rank, (_, message) in enumerate(outcomes):
        if message is not None:
            raise failure or RankError(f"rank {rank} failed: {message}")
    return [outcome for outcome, _ in outcomes]


@contextlib.contextmanager
def open_ranks(device: str) -> Iterator[Ranks]:
    """The ranks started by ``torchrun``; a single one without it.

    Raises:
        RankError: the environment variables of ``torchrun`` are incomplete, the processes cannot connect, or another
            launcher started several; in the block, when another rank has exited.
    """
    if not _several_processes():
        _check_alone()
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


def _several_processes() -> bool:
    """True if the environment variables are those of a process among several.

    Raises:
        RankError: they are incomplete or wrong. Some clusters set WORLD_SIZE for every job.
    """
    size = os.environ.get("WORLD_SIZE", "").strip()
    if size in ("", "1"):
        return False
    needed = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")
    numbers = {name: os.environ.get(name, "") for name in needed if name != "MASTER_ADDR"}
    wrong = [
        f"{name} is {value!r}" if value else f"{name} is not set"
        for name, value in numbers.items()
        if not re.fullmatch(r"\d{1,9}", value)
    ]
    wrong += [] if os.environ.get("MASTER_ADDR") else ["MASTER_ADDR is not set"]
    if not wrong and int(numbers["RANK"]) >= int(size):
        wrong = [f"RANK is {numbers['RANK']}, expected less than WORLD_SIZE"]
    if wrong:
        stated = f"WORLD_SIZE is {size}, but " if size.isdecimal() else ""
        raise RankError(
            f"{stated}{', '.join(wrong)}: start several processes with torchrun, or unset WORLD_SIZE to run one"
        )
    return True


def _check_alone() -> None:
    """Checks that no launcher but ``torchrun`` started several processes: each would train the whole run.

    Raises:
        RankError: one did, and WORLD_SIZE does not say that this process is alone.
    """
    if os.environ.get("WORLD_SIZE", "").strip():
        return
    several = [name for name in _LAUNCHED if _number(name) > 1]
    in_job = "SLURM_STEP_NUM_TASKS" not in os.environ and _number("SLURM_NTASKS") > 1
    if several or (in_job and _number("SLURM_PROCID")):
        name = [*several, "SLURM_NTASKS"][0]
        raise RankError(
            f"{name} is {os.environ[name]}, and each process would train the whole run: {_HINT}; or set WORLD_SIZE=1"
            " if each is a run of its own"
        )
    if in_job and os.environ.get("SLURM_PROCID") == "0":  # as in a batch script, which is one process
        print_stderr(f"SLURM_NTASKS is {os.environ['SLURM_NTASKS']}, but this process trains alone: {_HINT}")


def _number(name: str) -> int:
    """The value of an environment variable; 0 if it is not set, or no number."""
    value = os.environ.get(name, "")
    return int(value) if re.fullmatch(r"\d{1,9}", value) else 0


def local_device(device: str) -> str:
    """``cuda`` -> the GPU of this process, by its rank on the machine.

    Raises:
        RankError: this machine has fewer GPUs.
    """
    local, gpus = os.environ.get("LOCAL_RANK", ""), torch.cuda.device_count()
    if device != "cuda" or not (local or _several_processes()):
        return device
    if not local and gpus == 1:
        return "cuda:0"
    if not local.isdecimal() or int(local) >= gpus:
        found = f"is {local}" if local else "is not set"
        raise RankError(f"LOCAL_RANK {found}, and this machine has {gpus} GPUs: start a process for each with torchrun")
    return f"cuda:{int(local)}"
