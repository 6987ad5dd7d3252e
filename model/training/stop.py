"""A lock on the folder of a run."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from model.training.config import TrainingError


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Holds ``run`` for one process. Raises: TrainingError: another one trains into it."""
    handle = os.open(run, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise TrainingError(f"{run}: another process is training here; wait for it, or choose another --out") from None
    finally:
        os.close(handle)
