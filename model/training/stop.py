"""Stopping a run: signals that are noted, and a lock on its folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model.training.config import TrainingError

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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


class StopSignals:
    """Notes SIGINT, SIGTERM and SIGHUP instead of dying of them; a second one is obeyed at once.

    Those that the process was started to ignore, as with ``nohup`` or ``&``, stay ignored.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> StopSignals:
        heard = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("stopping after this step...", file=sys.stderr, flush=True)
