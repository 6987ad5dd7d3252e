"""Worker processes: how they start, and that they end."""

from __future__ import annotations

import concurrent.futures as futures
import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from types import FrameType
from typing import Any, TypeVar

from shards.errors import LrfrError

Result = TypeVar("Result")

_GROUPS = (signal.SIGINT, signal.SIGHUP)  # a terminal sends them to all that it has started
_WAITING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)  # the last one is an interruption put off
_PATIENCE = 1.0  # seconds until another signal insists: some senders send two at once


class WorkerError(LrfrError):
    """A worker process died. One line."""


class WorkerPool(futures.ProcessPoolExecutor):
    """Processes that take no notice of Ctrl-C, and that end with this one, however it ends.

    As a context manager it ends them at once, whatever they are at.

    Raises:
        WorkerError: from the context manager, if a worker died.
    """

    def __init__(self, workers: int, begin: Callable[..., object] | None = None, *arguments: object) -> None:
        """
        Args:
            begin: called with ``arguments`` in each worker before its first task. They fit into a pipe, 64 KB: more
                would be written for ever to a worker that is killed as it starts.
        """
        # spawn, not fork: OpenCV and Arrow hold threads, which a fork would lose with their locks held
        context = multiprocessing.get_context("spawn")
        _start_tracker()
        super().__init__(workers, mp_context=context, initializer=partial(_start_worker, begin, *arguments))

    def submit(self, function: Callable[..., Result], /, *args: Any, **kwargs: Any) -> futures.Future[Result]:
        with starting_processes():
            return super().submit(function, *args, **kwargs)

    def __exit__(self, kind: object, error: BaseException | None, at: object) -> None:
        for process in list((self._processes or {}).values()):
            process.terminate()
        self.shutdown(wait=True, cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            raise WorkerError("a worker process died (out of memory?)") from None


@contextlib.contextmanager
def starting_processes(*never: int) -> Iterator[None]:
    """Processes that are started within never get SIGINT and SIGHUP, which reach the whole group: this one decides.

    Here they wait until the end of the block, for what is half started is hard to stop.

    Args:
        never: more signals that they do not get. With SIGTERM among them only ``Process.kill`` ends them from outside.
    """
    _start_tracker()
    with signals_wait(), _blocked(*_GROUPS, *never):  # which a process inherits
        yield


def _start_tracker() -> None:
    """Before others need it: it minds SIGHUP, if it does not inherit that it is blocked, and its start unblocks SIGINT."""
    with _blocked(signal.SIGHUP):
        resource_tracker.ensure_running()


@contextlib.contextmanager
def signals_wait() -> Iterator[None]:
    """What interrupts this process waits until the end of the block, or until it insists: another signal a second later."""
    arrived: list[int] = []
    since = 0.0
    handlers: dict[int, Any] = {}
    waiting = False

    def later(number: int, frame: FrameType | None) -> None:
        nonlocal since
        since = since if arrived else time.monotonic()
        if waiting and time.monotonic() - since < _PATIENCE:
            arrived.append(number)
        else:  # it insists, or a signal amid the changes has left this handler behind
            arrived.clear()
            signal.signal(number, handlers[number])
            signal.raise_signal(number)

    if threading.current_thread() is threading.main_thread():  # others are never interrupted
        for waited in _WAITING:
            handlers[waited] = signal.getsignal(waited)
            signal.signal(waited, later)
    try:
        waiting = True
        yield
    finally:
        waiting = False
        for restored, handler in handlers.items():
            signal.signal(restored, handler)
        for number in arrived:
            signal.raise_signal(number)


@contextlib.contextmanager
def _blocked(*numbers: int) -> Iterator[None]:
    """The signals wait until the end of the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(begin: Callable[..., object] | None, *arguments: object) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_die_with, args=(parent.sentinel,), daemon=True).start()
    if begin:
        begin(*arguments)


def _die_with(sentinel: int) -> None:
    """Workers of a killed parent would wait for tasks for ever."""
    wait([sentinel])
    os._exit(1)
