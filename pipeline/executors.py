"""One unordered map over independent tasks: in this process or in a pool of them."""

from __future__ import annotations

import concurrent.futures as futures
from collections.abc import Callable, Generator, Iterable
from typing import Literal, TypeVar

from pipeline.workers import WorkerPool

Task = TypeVar("Task")
Result = TypeVar("Result")
Executor = Literal["process", "serial"]

_IN_FLIGHT = 2  # tasks a worker: one at work, one waiting, so that memory does not grow with their number


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
    with WorkerPool(workers) as pool:
        remaining = iter(tasks)
        first = zip(range(workers * _IN_FLIGHT), remaining, strict=False)
        running = {pool.submit(function, task) for _, task in first}
        while running:
            done, running = futures.wait(running, return_when=futures.FIRST_COMPLETED)
            running |= {pool.submit(function, task) for _, task in zip(done, remaining, strict=False)}
            for future in done:
                yield future.result()
