"""Worker processes, and an unordered map over independent tasks."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Literal, TypeVar

from pipeline.signals import SIGNALS, delayed_interruption
from shards.errors import LrfrError

Task = TypeVar("Task")
Result = TypeVar("Result")
Executor = Literal["process", "serial"]


class WorkerError(LrfrError):
    """A worker process died."""


class WorkerPool:
    """Context manager: worker processes that ignore Ctrl-C, and die when the block ends or the parent dies.

    Uses pipes without locks: an interruption can leave the locks of a concurrent.futures pool locked.
    """

    def __init__(self, workers: int) -> None:
        self._count = workers
        self._workers: dict[Connection, BaseProcess] = {}

    def __enter__(self) -> WorkerPool:
        # spawn, not fork: a fork loses the threads of OpenCV and Arrow, and keeps their locks locked
        context = multiprocessing.get_context("spawn")
        try:
            with starting_workers():
                for _ in range(self._count):
                    ours, theirs = context.Pipe()
                    process = context.Process(target=_work, args=(theirs,))
                    process.start()
                    self._workers[ours] = process
                    theirs.close()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._workers.values():
            process.kill()
        for connection, process in self._workers.items():
            connection.close()
            process.join()

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Generator[Result, None, None]:
        """Yields ``function(task)`` for every task, in any order; the first error of a task is raised here.

        Args:
            function: importable by name.

        Raises:
            WorkerError: a worker process died.
        """
        remaining = iter(tasks)
        busy: set[Connection] = set()

        def assign(worker: Connection) -> None:
            for task in itertools.islice(remaining, 1):
                with _worker_errors():
                    _send(worker, (function, task))
                busy.add(worker)

        for worker in self._workers:
            assign(worker)
        while busy:
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                with _worker_errors():
                    result, error = _receive(ready)
                if error:
                    raise error
                busy.remove(ready)
                assign(ready)
                yield result


def unordered_map(
    function: Callable[[Task], Result], tasks: Iterable[Task], *, executor: Executor, workers: int
) -> Generator[Result, None, None]:
    """``WorkerPool.map`` with ``workers`` processes; executor ``serial`` runs the tasks in this process."""
    if executor == "serial":
        yield from map(function, tasks)
        return
    with WorkerPool(workers) as pool:
        yield from pool.map(function, tasks)


@contextlib.contextmanager
def starting_workers() -> Iterator[None]:
    """Blocks ``SIGNALS`` in the processes that are started in this block; only SIGKILL stops them from outside.

    Terminals and batch systems signal the whole process group; the parent decides what happens to its workers.
    """
    with delayed_interruption():  # another thread of this process may receive a signal that this one blocks
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        try:
            resource_tracker.ensure_running()  # handles SIGINT and SIGTERM itself, and unblocks them here
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # inherited by new processes
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _worker_errors() -> Iterator[None]:
    try:
        yield
    except (EOFError, ConnectionError):
        raise WorkerError("a worker process died (out of memory?)") from None


def _send(connection: Connection, message: object) -> None:
    """Replaces ``Connection.send``, with which early Python 3.11 and 3.12 crash if an exception keeps its buffer."""
    connection.send_bytes(pickle.dumps(message))


def _receive(connection: Connection) -> Any:
    return pickle.loads(connection.recv_bytes())


def _work(tasks: Connection) -> None:
    threading.Thread(target=_die_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, BrokenPipeError):  # the parent died
        while True:
            function, task = _receive(tasks)
            try:
                _send(tasks, (function(task), None))
            except Exception as error:  # noqa: BLE001 -- raised again by WorkerPool.map
                error.add_note(traceback.format_exc())
                _send(tasks, (None, error))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
