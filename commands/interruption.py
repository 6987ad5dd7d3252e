"""Ctrl-C, SIGTERM and SIGHUP: a KeyboardInterrupt that ends the command, wherever it comes."""

from __future__ import annotations

import signal
import sys
import time
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LATER = 0.05  # seconds
_PATIENCE = 1.0  # seconds until another signal insists: some senders send two at once
_CLEANING = ("__del__", "rmtree")  # the first would swallow it, the second leave half a folder
_LOCKING = ("__enter__", "__exit__")  # which would leave a lock held for ever


class Interruption:
    """Within it SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt, which is also what leaves it then, whatever became of that.

    Finalisers, callbacks and C code may swallow an exception, or make another one of it. Behind the block everything is
    done but what Python does as it exits, which swallows exceptions, too: a first signal changes nothing there, a second
    ends the process, and so does a first one in the tenth of a second in which Python no longer has handlers.

    Amid what an exception would leave half done (``_delicate``) a signal waits; a second one, a second later, does not.

    What was swallowed waits for a moment in which no exception is handled: cleaning up and all else that an ``except`` or a
    ``finally`` does goes on, unless a second signal comes. A signal that this process was started to ignore, as with
    ``nohup`` or ``&``, stays ignored.
    """

    def __enter__(self) -> None:
        self._asked: float | None = None  # when
        self._hook, sys.unraisablehook = sys.unraisablehook, self._swallowed
        self._numbers = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        for number in self._numbers:
            signal.signal(number, self._interrupt)
        signal.signal(signal.SIGALRM, self._again)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number in self._numbers:
            signal.signal(number, lambda number, frame: signal.signal(number, signal.SIG_DFL))
        sys.unraisablehook = self._hook
        if self._asked is not None and not isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise KeyboardInterrupt(*getattr(error, "__notes__", ()))

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        self._asked = now if self._asked is None else self._asked
        if _delicate(frame) and now - self._asked < _PATIENCE:
            _later()
        else:
            raise KeyboardInterrupt

    def _again(self, number: int, frame: FrameType | None) -> None:
        """Not while an exception is on its way: it ends the command, too, and is not to be disturbed in cleaning up."""
        if sys.exc_info()[1] is not None or _delicate(frame):
            _later()
        else:
            self._interrupt(number, frame)

    def _swallowed(self, what: Any) -> None:
        """Python calls this with every exception that cannot be raised where it came up."""
        if issubclass(what.exc_type, KeyboardInterrupt):
            _later()
        else:
            self._hook(what)


def _later() -> None:
    signal.setitimer(signal.ITIMER_REAL, _LATER)  # ends in Interruption._again


def _delicate(frame: FrameType | None) -> bool:
    """Amid an import, for half-loaded extension modules swallow or mangle exceptions; amid cleaning up; at a lock."""
    if frame is not None and frame.f_code.co_name in _LOCKING:
        return True
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith("<frozen importlib") or code.co_name in _CLEANING:
            return True
        frame = frame.f_back
    return False
