"""SIGINT, SIGTERM and SIGHUP where a KeyboardInterrupt must not hit: in a training step or while processes start."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignals:
    """Context manager: the first signal sets ``requested``, the second raises KeyboardInterrupt.

    Signals that the process ignores, as under ``nohup``, stay ignored. Does nothing outside the main thread, which is
    the only one that Python interrupts.
    """

    def __init__(self, message: str = "") -> None:
        """
        Args:
            message: written to stderr at the first signal.
        """
        self.requested = False
        self._message = message
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            handled = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._handle) for number in handled}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        os.write(2, self._message.encode())  # sys.stderr may be in the middle of a write


@contextlib.contextmanager
def delayed_interruption() -> Iterator[None]:
    """Raises an interruption at the end of the block; a second signal interrupts at once."""
    with StopSignals() as stop:
        try:
            yield
        finally:
            if stop.requested:
                raise KeyboardInterrupt


@contextlib.contextmanager
def starting_workers() -> Iterator[None]:
    """Processes started in this block never receive ``SIGNALS``: only SIGKILL stops them from outside.

    Terminals and batch systems signal the whole process group; the parent decides what happens to its workers.
    """
    with delayed_interruption():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        try:
            resource_tracker.ensure_running()  # handles SIGINT and SIGTERM itself, and unblocks them here
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # inherited by new processes
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
