"""Handlers for SIGINT, SIGTERM and SIGHUP, the signals that interrupt a command."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def handle_signals(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Sets ``handler`` for ``SIGNALS`` within the block.

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


class StopFlag:
    """Set by the first signal."""

    requested = False


@contextlib.contextmanager
def stop_signals(message: str = "") -> Iterator[StopFlag]:
    """Yields a flag. The first signal sets it and writes ``message`` to stderr, the second raises KeyboardInterrupt."""
    stop = StopFlag()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True
        os.write(2, message.encode())  # sys.stderr may be in the middle of a write

    with handle_signals(handle):
        yield stop


@contextlib.contextmanager
def delayed_interruption() -> Iterator[None]:
    """Delays KeyboardInterrupt to the end of the block; a second signal raises it immediately."""
    with stop_signals() as stop:
        try:
            yield
        finally:
            if stop.requested:
                raise KeyboardInterrupt
