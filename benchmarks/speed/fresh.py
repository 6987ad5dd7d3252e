"""Measures in a process of its own: its memory is its own, and nothing is imported, opened or cached in it yet."""

from __future__ import annotations

import re
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TypeVar

from pipeline.workers import WorkerPool

Result = TypeVar("Result")

_GRACE = 5  # seconds to end in order

LEAST_MB = 4096 / 1e6  # a page: no less can be told, and a logarithm needs something


def in_fresh_process(function: Callable[..., Result], *arguments: object) -> Result:
    """What ``function``, found by name, returns in a new interpreter.

    Raises:
        WorkerError: that was killed.
    """
    with WorkerPool(1) as pool:
        return pool.submit(_ending_in_order, function, *arguments).result()


def _ending_in_order(function: Callable[..., Result], *arguments: object) -> Result:
    """On SIGTERM the process ends its own workers before it exits: they would leave semaphores, and write on for a moment.

    While ``function`` is being imported there are none yet, and libraries make other errors of an exit: SIGTERM kills it.
    """
    signal.signal(signal.SIGTERM, _leave)
    return function(*arguments)


def _leave(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the group's, then our parent's: a second would break off the ending
    signal.alarm(_GRACE)  # the end of a process that a finaliser has kept from its exit by swallowing it
    sys.exit(1)


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
