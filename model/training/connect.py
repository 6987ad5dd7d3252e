"""Connects the processes that ``torchrun`` started; a signal ends the wait."""

from __future__ import annotations

import datetime
import os
import threading
from concurrent import futures

import torch
from torch import distributed

from model.errors import one_line
from shards.messages import print_stderr

QUIET_S = 20.0  # until a line says what is waited for


def connect(backend: str, device: str, timeout: datetime.timedelta) -> None:
    """Makes the process group; waits for the other processes.

    PyTorch waits in C++, where no signal reaches Python: so it does in another thread.

    Raises:
        RuntimeError, ValueError, OSError: they do not connect.
    """
    connection: futures.Future[None] = futures.Future()

    def work() -> None:
        try:
            if backend == "nccl":
                torch.cuda.set_device(device)  # each thread has a current device
            distributed.init_process_group(backend, timeout=timeout)
            connection.set_result(None)
        except BaseException as error:  # noqa: BLE001 (raised below)
            connection.set_exception(error)

    threading.Thread(target=work, daemon=True, name="connect").start()
    if not futures.wait([connection], QUIET_S).done:
        print_stderr(f"rank {os.environ['RANK']}: waiting for the other processes at {_meeting_point()}")
    connection.result()


def _meeting_point() -> str:
    return f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"


def no_connection(error: Exception) -> str:
    """What to say of an error of connecting, with the remedy."""
    address = _meeting_point()
    reason = one_line(error)
    if "connectFullMesh" not in reason and not isinstance(error, OSError):
        return f"no connection to the other processes at {address} ({reason})"
    return (
        f"no connection between the processes, which met at {address} ({reason}): set GLOO_SOCKET_IFNAME, and"
        " NCCL_SOCKET_IFNAME for GPUs, to the network interface that the machines share, such as eth0, and let the"
        " firewall pass all ports between them"
    )
