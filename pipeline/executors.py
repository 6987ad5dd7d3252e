"""One unordered map over independent tasks: in this process or in a pool of them."""

from __future__ import annotations

import concurrent.futures as futures
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable
from multiprocessing.connection import wait
from typing import Literal, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")
Executor = Literal["process", "serial"]

_IN_FLIGHT = 2  # tasks a worker: one at work, one waiting, so that memory does not grow with their number


class WorkerError(Exception):
    """A worker process died. One line."""


def unordered_map(
    function: Callable[[Task], Result], tasks: Iterable[Task], *, executor: Executor, workers: int
) -> Generator[Result, None, None]:
    """Yields ``function(task)`` for every task, in any order; a failing task raises here and stops the rest.

    Args:
        function: importable by name, so that a worker process finds it.

    Raises:
        WorkerError: a worker process was killed.
    """
    if executor == "serial":
        yield from map(function, tasks)
        return
    # spawn, not fork: OpenCV and Arrow hold threads, which a fork would lose with their locks held
    context = multiprocessing.get_context("spawn")
    pool = futures.ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        remaining = iter(tasks)
        running = {pool.submit(function, task) for _, task in zip(range(workers * _IN_FLIGHT), remaining, strict=False)}
        while running:
            done, running = futures.wait(running, return_when=futures.FIRST_COMPLETED)
            running |= {pool.submit(function, task) for _, task in zip(done, remaining, strict=False)}
            for future in done:
                yield future.result()
    except futures.process.BrokenProcessPool:
        raise WorkerError(
            "a worker process was killed (out of memory?); what was committed is kept: run the same command to resume"
        ) from None
    finally:
        _stop(pool)


def _stop(pool: futures.ProcessPoolExecutor) -> None:
    """Ends the workers at once; a task that they leave half done has published nothing."""
    for process in list((pool._processes or {}).values()):
        process.terminate()
    pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_die_with, args=(parent.sentinel,), daemon=True).start()


def _die_with(sentinel: int) -> None:
    """Workers of a killed parent would wait for tasks for ever."""
    wait([sentinel])
    os._exit(1)
