"""The ordinary DataLoader that baselines read by, ended in order."""

from __future__ import annotations

import contextlib
import multiprocessing.util
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from pipeline.workers import WorkerError, starting_processes


@contextlib.contextmanager
def plain_batches(loader: DataLoader) -> Iterator[Iterator[Any]]:
    """The batches of a loader with worker processes, which are there as long as the block is.

    Raises:
        WorkerError: one was killed.
    """
    multiprocessing.util.get_temp_dir()  # which workers share, and this process deletes; else each makes one of its own
    batches: Any = None
    try:
        with starting_processes():  # which ends with an interruption, if one came
            batches = iter(loader)
        yield batches
    except RuntimeError as error:
        if "DataLoader worker" in str(error):
            raise WorkerError("a worker process of a DataLoader died (out of memory?)") from None
        raise
    finally:
        if batches is not None:
            batches._shutdown_workers()  # an exception's traceback would keep them at work until it is dropped
