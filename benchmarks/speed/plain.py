"""The ordinary DataLoader that baselines read by, ended in order."""

from __future__ import annotations

import contextlib
import multiprocessing.util
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from pipeline.workers import starting_processes


@contextlib.contextmanager
def plain_batches(loader: DataLoader) -> Iterator[Iterator[Any]]:
    """The batches of a loader with worker processes, which are there as long as the block is."""
    multiprocessing.util.get_temp_dir()  # which workers share, and this process deletes; else each makes one of its own
    batches: Any = None
    try:
        with starting_processes():  # which ends with an interruption, if one came
            batches = iter(loader)
        yield batches
    finally:
        if batches is not None:
            batches._shutdown_workers()  # an exception's traceback would keep them at work until it is dropped
