"""The ordinary DataLoader that baselines read by, ended in order."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.util
import signal
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

from pipeline.workers import WorkerError, signals_wait, starting_processes

# PyTorch's handler for the death of a worker raises wherever this process is, amid a lock too, which is then held for ever.
# Without it a loader that waits for a batch finds a dead worker within five seconds. It holds for the whole process.
signal_handling._SIGCHLD_handler_set = True

_END = object()


@contextlib.contextmanager
def plain_batches(loader: DataLoader) -> Iterator[Iterator[Any]]:
    """The batches of a loader with worker processes, which are there as long as the block is.

    Raises:
        WorkerError: one was killed.
    """
    multiprocessing.util.get_temp_dir()  # which workers share, and this process deletes; else each makes one of its own
    others = set(multiprocessing.active_children())
    batches: Any = None
    try:
        with starting_processes(signal.SIGTERM):  # which ends with an interruption, if one came
            batches = iter(loader)
        yield _received(batches)
    except RuntimeError as error:
        if "DataLoader worker" in str(error):
            raise WorkerError("a worker process of a DataLoader died (out of memory?)") from None
        raise
    finally:
        try:
            if batches is not None:
                with signals_wait():
                    batches._shutdown_workers()  # an exception's traceback would keep them at work until it is dropped
        finally:
            for worker in set(multiprocessing.active_children()) - others:  # SIGTERM, which PyTorch tries, is blocked
                worker.kill()
                worker.join()


def _received(batches: Iterator[Any]) -> Iterator[Any]:
    """Signals wait for the next batch: one that is half received leaves locks held, and its worker complaining."""
    while True:
        with signals_wait():
            batch = next(batches, _END)
        if batch is _END:
            return
        yield batch
