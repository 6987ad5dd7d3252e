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
WAIT_S = 0.5
Handler = Callable[[int, FrameType | None], Any]
_handlers: list[Handler] = []  # of the blocks that the main thread is in, outermost first


@contextlib.contextmanager
def handle_signals(handler: Handler) -> Iterator[None]:
    """Sets ``handler`` for ``SIGNALS`` within the block.

    Signals that the process ignores, as under ``nohup``, stay ignored. Does nothing outside the main thread, which is
    the only one that Python interrupts.

    Only the outermost block changes handlers of Python, one after another. Inner ones are entered and left at once, so
    that no signal arrives in between and calls a handler that nobody asks any more.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    outer = len(_handlers)
    before: dict[signal.Signals, Any] = {}
    try:
        _handlers.append(handler)
        before |= {
            number: old for number in SIGNALS if (old := signal.getsignal(number)) not in (_handle, signal.SIG_IGN)
        }
        for number in before:
            signal.signal(number, _handle)
        yield
    finally:
        try:
            for number, old in reversed(before.items()):  # SIGINT last: its old handler may raise
                signal.signal(number, old)
        finally:
            del _handlers[outer:]


def _handle(number: int, frame: FrameType | None) -> None:
    _handlers[-1](number, frame)


class Stopped(BaseException):
    """A block ``StopFlag.waiting`` lasted for too long after the first signal."""


class StopFlag:
    """Set by the first signal."""

    requested = False
    _waits = _is_late = False

    @contextlib.contextmanager
    def waiting(self, applies: bool = True) -> Iterator[None]:
        """A block that may wait for minutes: ``Stopped`` ends it ``WAIT_S`` after the first signal.

        Args:
            applies: False changes nothing.
        """
        self._waits = applies
        try:
            yield
        finally:
            self._waits = False

    def handle(self, number: int, message: str) -> None:
        """Notes a signal. Raises: KeyboardInterrupt: the second one. Stopped: see ``waiting``."""
        if self._is_late:
            self._is_late = False
            if self._waits:
                raise Stopped
        elif self.requested:
            raise KeyboardInterrupt
        else:
            self.requested = True
            os.write(2, message.encode())  # sys.stderr may be in the middle of a write
            if self._waits:
                timer = threading.Timer(WAIT_S, self._late, [number])
                timer.daemon = True
                timer.start()

    def _late(self, number: int) -> None:
        main = threading.main_thread().ident
        if self._waits and main:
            self._is_late = True
            signal.pthread_kill(main, number)  # ends what it waits for, and calls ``handle``


@contextlib.contextmanager
def stop_signals(message: str = "") -> Iterator[StopFlag]:
    """Yields a flag. The first signal sets it and writes ``message`` to stderr, the second raises KeyboardInterrupt."""
    stop = StopFlag()
    with handle_signals(lambda number, frame: stop.handle(number, message)):
        yield stop


@contextlib.contextmanager
def delayed_interruption() -> Iterator[None]:
    """Delays KeyboardInterrupt to the end of the block; a second signal raises it immediately."""
    stop = StopFlag()
    try:
        with handle_signals(lambda number, frame: stop.handle(number, "")):
            yield
    finally:  # only now: a signal may arrive while the block is left
        if stop.requested:
            raise KeyboardInterrupt
