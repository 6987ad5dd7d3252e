"""Handlers for SIGINT, SIGTERM and SIGHUP, the signals that interrupt a command."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def handle_signals(handler: Any = signal.default_int_handler) -> Iterator[None]:
    """Sets ``handler``, by default the one that raises KeyboardInterrupt, for ``SIGNALS`` within the block.

    Signals that the process ignores, as under ``nohup``, stay ignored. Does nothing outside the main thread, which is
    the only one that Python interrupts.
    """
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: old for number in SIGNALS if (old := signal.getsignal(number)) != signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


class StopSignals:
    """Context manager: the first signal sets ``requested`` and writes ``message``, the second raises KeyboardInterrupt."""

    def __init__(self, message: str = "") -> None:
        self.requested = False
        self._message = message
        self._handled = handle_signals(self._handle)

    def __enter__(self) -> StopSignals:
        self._handled.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._handled.__exit__(*error)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        os.write(2, self._message.encode())  # sys.stderr may be in the middle of a write


@contextlib.contextmanager
def delayed_interruption() -> Iterator[None]:
    """Delays KeyboardInterrupt to the end of the block; a second signal raises it immediately."""
    with StopSignals() as stop:
        try:
            yield
        finally:
            if stop.requested:
                raise KeyboardInterrupt
