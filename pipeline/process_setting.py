"""Settings of the process that are changed for the length of a block, which several threads may be in at once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class ProcessSetting(contextlib.ContextDecorator, Generic[Value]):
    """Changes a setting while any thread is in a block, and restores it when the last one leaves.

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

    def __enter__(self) -> None:
        with self._lock:
            if not self._blocks:
                self._before = self._read()
            if not self._blocks or self._of_threads:
                self._change()
            self._blocks += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._blocks -= 1
            if not self._blocks or self._of_threads:
                self._restore(self._before)
