"""Settings of the process that are changed for the length of a block, which several threads may be in at once."""

from __future__ import annotations

import contextlib
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class ProcessSetting(contextlib.ContextDecorator, Generic[Value]):
    """Changes a setting while any thread is in a block, and restores it when the last one leaves. Yields the old value.

    If each thread saved and restored it by itself, one could save what another had changed.
    """

    def __init__(
        self,
        read: Callable[[], Value],
        change: Callable[[], None],
        restore: Callable[[Value], None],
        *,
        of_threads: bool = False,
    ) -> None:
        """
        Args:
            of_threads: each thread has a copy of the setting, which it restores when it leaves.
        """
        self._read, self._change, self._restore, self._of_threads = read, change, restore, of_threads
        self._lock = threading.Lock()
        self._blocks = 0  # that threads are in
        self._before: Value

    def __enter__(self) -> Value:
        with self._lock:
            if not self._blocks:
                self._before = self._read()
            if not self._blocks or self._of_threads:
                self._change()
            self._blocks += 1
            return self._before

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._blocks -= 1
            if not self._blocks or self._of_threads:
                self._restore(self._before)


@contextlib.contextmanager
def ignored_warnings(module: str = "") -> Iterator[None]:
    """Ignores all warnings, or those of modules whose names begin with ``module``, while any thread is in the block.

    ``warnings.catch_warnings`` restores a whole list, so of two threads one would restore what the other has changed.
    """
    entry = ("ignore", None, Warning, re.compile(re.escape(module)), 0)
    filters: Any = warnings.filters
    filters.insert(0, entry)
    try:
        yield
    finally:
        now: Any = warnings.filters  # another list, if a block of catch_warnings has begun or ended since
        for one in [filters] if now is filters else [filters, now]:
            with contextlib.suppress(ValueError):
                one.remove(entry)
