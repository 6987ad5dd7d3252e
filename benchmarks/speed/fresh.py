"""Measures in a process of its own: its memory is its own, and nothing is imported, opened or cached in it yet."""

from __future__ import annotations

import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pipeline.executors import WorkerPool

Result = TypeVar("Result")

LEAST_MB = 4096 / 1e6  # a page: no less can be told, and a logarithm needs something


def in_fresh_process(function: Callable[..., Result], *arguments: object) -> Result:
    """What ``function``, found by name, returns in a new interpreter.

    Raises:
        WorkerError: that was killed.
    """
    with WorkerPool(1) as pool:
        (result,) = pool.map(_call, [(function, arguments)])
        return result


def _call(task: tuple[Callable[..., Result], tuple[object, ...]]) -> Result:
    function, arguments = task
    return function(*arguments)


def resident_mb() -> float:
    """Memory of this process, MB."""
    return _status("VmRSS")


def peak_mb() -> float:
    """The most that it has been, MB; unlike getrusage's figure not what the process that started it held."""
    return _status("VmHWM")


def largest_mb() -> float:
    """The peak of this process or of the largest of its children that have ended, MB."""
    return max(peak_mb(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6)


def _status(name: str) -> float:
    found = re.search(rf"^{name}:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found, f"no {name} in /proc/self/status"
    return int(found[1]) * 1024 / 1e6
