"""Worker processes, and an unordered map over independent tasks."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import multiprocessing
import os
import pickle
import signal
import socket
import struct
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Generator, Iterable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal, TypeVar

from pipeline.signals import SIGNALS, delayed_interruption
from shards.errors import LrfrError
from shards.messages import print_stderr
from shards.process_setting import ProcessSetting

Task = TypeVar("Task")
Result = TypeVar("Result")
Executor = Literal["process", "serial", "ray"]
POLL_S = 2.0  # between looks at the busy workers
STOPPED_S = 10.0  # a worker that is stopped (SIGSTOP) for so long is replaced
HUNG_S = 120.0  # a worker that has not used the CPU for so long is replaced: it waits for a dead disk or network


class WorkerError(LrfrError):
    """A worker process died, hangs whenever it is given a certain task, or cannot be started."""


@dataclasses.dataclass
class _Job:
    """A task that a worker has, and for how long the worker has been stopped or idle."""

    task: Any
    is_second_try: bool = False
    cpu_ticks: int = -1
    stopped_s: float = 0.0
    idle_s: float = 0.0

    def look(self, process: BaseProcess) -> str:
        """Looks at the worker again after ``POLL_S``; returns what is wrong with it, ``""`` if nothing is.

        Looks are counted, not seconds: they stop with this process when the whole group is stopped.
        """
        try:
            state, *fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2].split()
        except OSError:  # it has just died, which its pipe will tell
            return ""
        ticks = int(fields[10]) + int(fields[11])  # utime and stime, proc(5)
        self.stopped_s = self.stopped_s + POLL_S if state == "T" else 0.0
        idle = ticks == self.cpu_ticks and state != "R"  # R: waits for a busy CPU
        self.idle_s = self.idle_s + POLL_S if idle else 0.0
        self.cpu_ticks = ticks
        if self.stopped_s >= STOPPED_S:
            return f"has been stopped for {self.stopped_s:.0f} s"
        return f"has done nothing for {self.idle_s:.0f} s (a dead disk or network?)" if self.idle_s >= HUNG_S else ""


class WorkerPool:
    """Context manager: worker processes that ignore Ctrl-C, and die when the block ends or the parent dies.

    A worker that is stopped or hangs is replaced, and the new one starts its task again.

    Uses pipes without locks: an interruption can leave the locks of a concurrent.futures pool locked.
    """

    def __init__(self, workers: int) -> None:
        self._count = workers
        self._workers: dict[Connection, BaseProcess] = {}
        self._next_look = 0.0

    def __enter__(self) -> WorkerPool:
        if multiprocessing.current_process().daemon:
            raise WorkerError(
                "this process is a daemon of multiprocessing, as in a Pool or a DataLoader, and may not start others; build"
                " with executor='serial', or in a process of a ProcessPoolExecutor"
            )
        try:
            with starting_workers():
                for _ in range(self._count):
                    self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> Connection:
        # spawn, not fork: a fork loses the threads of OpenCV and Arrow, and keeps their locks locked
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs,))
        with hidden_main_module, kept_start_method:
            process.start()
        self._workers[ours] = process
        theirs.close()
        with socket.socket(fileno=os.dup(ours.fileno())) as end:  # a stopped worker neither reads nor writes
            for direction in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
                end.setsockopt(socket.SOL_SOCKET, direction, struct.pack("ll", *divmod(int(HUNG_S * 1e6), 10**6)))
        return ours

    def __exit__(self, *error: object) -> None:
        for process in self._workers.values():
            process.kill()
        for process in self._workers.values():
            process.join()
        self._workers.clear()  # closes the pipes, if the garbage collector has not been there first

    @property
    def process_ids(self) -> list[int]:
        """The ids of the worker processes."""
        return [process.pid for process in self._workers.values() if process.pid]

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Generator[Result, None, None]:
        """Yields ``function(task)`` for every task, in any order; the first error of a task is raised here.

        Args:
            function: importable by name, from a module other than ``__main__``.

        Raises:
            WorkerError: a worker process died, or hung twice at one task.
        """
        remaining = map(_Job, tasks)
        busy: dict[Connection, _Job] = {}

        def give(worker: Connection, job: _Job) -> None:
            try:
                with self._dying(worker):
                    _send(worker, (function, job.task))
                busy[worker] = job
            except BlockingIOError:
                replace(worker, job, f"has not read its task for {HUNG_S:.0f} s")

        def replace(worker: Connection, job: _Job, problem: str) -> None:
            busy.pop(worker, None)
            give(self._replaced(worker, job, problem), _Job(job.task, is_second_try=True))

        for worker, job in zip(list(self._workers), remaining, strict=False):
            give(worker, job)
        self._next_look = time.monotonic() + POLL_S
        while busy:
            for ready in wait(list(busy), timeout=POLL_S):
                assert isinstance(ready, Connection)
                try:
                    with self._dying(ready):
                        result, error = _receive(ready)
                except BlockingIOError:
                    replace(ready, busy[ready], f"has not ended its answer for {HUNG_S:.0f} s")
                    continue
                if error:
                    raise error
                del busy[ready]
                for job in itertools.islice(remaining, 1):
                    give(ready, job)
                yield result
            for worker, problem in self._problems(busy).items():
                replace(worker, busy[worker], problem)

    def _problems(self, busy: dict[Connection, _Job]) -> dict[Connection, str]:
        """Looks at the busy workers if ``POLL_S`` have passed; returns what is wrong with those that are stopped or hang."""
        if time.monotonic() < self._next_look:
            return {}
        found = {worker: job.look(self._workers[worker]) for worker, job in busy.items()}
        self._next_look = time.monotonic() + POLL_S
        return {worker: problem for worker, problem in found.items() if problem}

    def _replaced(self, worker: Connection, job: _Job, problem: str) -> Connection:
        """Kills a worker and starts another one.

        Raises:
            WorkerError: it is the second one for this task.
        """
        process = self._workers[worker]
        line = f"worker process {process.pid} ({str(job.task)[:80]}) {problem}"
        if job.is_second_try:
            raise WorkerError(f"{line}, like the one before it")
        print_stderr(f"{line}; another one takes its place")
        process.kill()
        del self._workers[worker]
        worker.close()
        process.join()
        with starting_workers():
            return self._start()

    @contextlib.contextmanager
    def _dying(self, worker: Connection) -> Iterator[None]:
        """Turns the end of a worker's pipe into a WorkerError that says how the worker died."""
        try:
            yield
        except (EOFError, ConnectionError):
            process = self._workers[worker]
            process.join()
            killed = process.exitcode == -signal.SIGKILL
            cause = "out of memory?" if killed else f"exit code {process.exitcode}"
            raise WorkerError(f"a worker process died ({cause})") from None


def unordered_map(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    executor: Executor,
    workers: int | None,
    ray_address: str | None = None,
) -> Generator[Result, None, None]:
    """``WorkerPool.map``; executor ``serial`` runs the tasks in this process, ``ray`` on a cluster.

    Args:
        workers: number of processes; None for one for each CPU, of this machine or of the cluster.
        ray_address: of the cluster; None starts one on this machine.
    """
    if executor == "serial":
        yield from map(function, tasks)
    elif executor == "ray":
        from pipeline.ray_pool import RayPool

        with RayPool(workers, ray_address) as cluster:
            yield from cluster.map(function, tasks)
    else:
        with WorkerPool(workers or len(os.sched_getaffinity(0))) as pool:
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


def _set_main_module(module: types.ModuleType) -> None:
    sys.modules["__main__"] = module


hidden_main_module = ProcessSetting(
    lambda: sys.modules["__main__"], lambda: _set_main_module(types.ModuleType("__main__")), _set_main_module
)
"""Keeps new processes from importing the caller's main module: a script may lack the ``__main__`` guard."""

kept_start_method = ProcessSetting(
    lambda: multiprocessing.get_start_method(allow_none=True),
    lambda: None,
    lambda method: multiprocessing.set_start_method(method, force=True),
)
"""The caller may still set the start method of ``multiprocessing``, which a process that starts settles."""


def _send(connection: Connection, message: object) -> None:
    """Replaces ``Connection.send``, with which early Python 3.11 and 3.12 crash if an exception keeps its buffer."""
    connection.send_bytes(pickle.dumps(message))


def _receive(connection: Connection) -> Any:
    return pickle.loads(connection.recv_bytes())


def _work(tasks: Connection) -> None:
    try:
        threading.Thread(target=_die_with_parent, daemon=True).start()
    except RuntimeError as error:  # the limit of processes and threads
        _receive(tasks)
        _send(tasks, (None, error))
        return
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
