"""Handlers for SIGINT, SIGTERM and SIGHUP, the signals that interrupt a command."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
WAIT_S = 0.5
REPEAT_S = 0.3
Handler = Callable[[int, FrameType | None], Any]
_handlers: list[Handler] = []  # of the blocks that the main thread is in, outermost first
_last = [-math.inf]  # when a signal was handled, in seconds; -inf: the next one is not a repetition of it


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
        try:
            _handlers.append(handler)
            before |= {
                number: old for number in SIGNALS if (old := signal.getsignal(number)) not in (_handle, signal.SIG_IGN)
            }
            if before:
                _last[0] = -math.inf
            for number in before:
                signal.signal(number, _handle)
            yield
        finally:
            for number, old in reversed(before.items()):  # SIGINT last: its old handler may raise
                signal.signal(number, old)
    finally:
        del _handlers[outer:]


def _handle(number: int, frame: FrameType | None) -> None:
    """Calls the handler of the innermost block, once for all signals within ``REPEAT_S``.

    One request may arrive twice: a shell whose terminal is closed passes SIGHUP on; ``torchrun`` passes on the SIGTERM
    that a batch system sends to every process of a job, and sends SIGTERM when it is interrupted itself.
    """
    now = time.monotonic()
    if now - _last[0] < REPEAT_S:
        return
    _last[0] = now
    # without a block: whoever changed our handler within one has put it back too late
    handler = _handlers[-1] if _handlers else signal.default_int_handler
    handler(number, frame)


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
            with contextlib.suppress(OSError):  # a terminal that was closed, or the pipe to a ``tee`` that has ended
                os.write(2, message.encode())  # sys.stderr may be in the middle of a write
            if self._waits:
                timer = threading.Timer(WAIT_S, self._late, [number])
                timer.daemon = True
                timer.start()

    def _late(self, number: int) -> None:
        main = threading.main_thread().ident
        if self._waits and main:
            self._is_late = True
            _last[0] = -math.inf
            signal.pthread_kill(main, number)  # ends what it waits for, and calls ``handle``


@contextlib.contextmanager
def stop_signals(message: str = "") -> Iterator[StopFlag]:
    """Yields a flag. The first signal sets it and writes ``message`` to stderr, the second raises KeyboardInterrupt."""
    stop = StopFlag()
    with handle_signals(lambda number, frame: stop.handle(number, message)):
        yield stop


@contextlib.contextmanager
def delayed_interruption() -> Iterator[None]:
    """Delays a signal to the end of the block, where its handler is called; a second one raises KeyboardInterrupt."""
    arrived: list[int] = []

    def delay(number: int, frame: FrameType | None) -> None:
        arrived.append(number)
        if len(arrived) > 1:
            raise KeyboardInterrupt

    try:
        with handle_signals(delay):
            yield
    finally:  # only now: a signal may arrive while the block is left
        if arrived:
            _last[0] = -math.inf
            signal.raise_signal(arrived[0])
