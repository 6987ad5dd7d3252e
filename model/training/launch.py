"""How this process was started: alone, by ``torchrun``, or by another launcher, as its environment variables say."""

from __future__ import annotations

import os
import re

import torch

from shards.errors import LrfrError
from shards.messages import print_stderr

_LAUNCHED = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")  # processes that MPI or srun started
_HINT = "start several with torchrun (in Slurm: srun torchrun, one task a node)"


class RankError(LrfrError):
    """Another rank has failed, or the processes were not started as expected."""


def several_processes() -> bool:
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


def check_alone() -> None:
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
    if device != "cuda" or not (local or several_processes()):
        return device
    if not local and gpus == 1:
        return "cuda:0"
    if not local.isdecimal() or int(local) >= gpus:
        found = f"is {local}" if local else "is not set"
        raise RankError(f"LOCAL_RANK {found}, and this machine has {gpus} GPUs: start a process for each with torchrun")
    return f"cuda:{int(local)}"
