"""PyTorch's DataLoader as baselines use it, with worker processes that end with the block."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.util
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from pipeline.executors import WorkerError, starting_workers
from pipeline.signals import delayed_interruption

_END = object()


@contextlib.contextmanager
def plain_batches(loader: DataLoader) -> Iterator[Iterator[Any]]:
    """The batches of ``loader``. Its worker processes end with the block.

    Raises:
        WorkerError: a worker process was killed.
    """
    multiprocessing.util.get_temp_dir()  # for this process and its workers; without it each worker leaves one behind
    others = set(multiprocessing.active_children())
    batches: Any = None
    try:
        with starting_workers():
            batches = iter(loader)
        yield _receive(batches)
    except RuntimeError as error:
        if "DataLoader worker" in str(error):
            raise WorkerError("a worker process of a DataLoader died (out of memory?)") from None
        raise
    finally:
        try:
            if batches is not None:  # the traceback of an exception keeps it alive
                with delayed_interruption():
                    batches._shutdown_workers()
        finally:
            for worker in set(multiprocessing.active_children()) - others:  # PyTorch sends SIGTERM, which is blocked
                worker.kill()
                worker.join()


def _receive(batches: Iterator[Any]) -> Iterator[Any]:
    """Interruptions wait until a batch is complete: half a batch leaves queues locked."""
    while True:
        with delayed_interruption():
            batch = next(batches, _END)
        if batch is _END:
            return
        yield batch
