"""FetchQueue: threads that fetch numbered files, those needed soonest first."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

FETCHES = 8  # in flight
POLL_S = 0.2  # between two tries of a file that must wait
CLOSE_S = 0.5
NOW = 0  # the order of a file that a thread waits for


class _ClosedError(Exception):
    """The queue was closed during a fetch."""


class FetchQueue:
    """May be used by several threads; its own start with the first file."""

    def __init__(self, fetch: Callable[[int], bool]) -> None:
        """
        Args:
            fetch: fetches the file of a number; returns False if the file must wait. It may call ``check_open`` at times,
                so that closing ends it.
        """
        self._fetch = fetch
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._wanted: dict[int, int] = {}  # number of a file -> order in which it is needed
        self._later: dict[int, float] = {}  # those of them that must wait, and until when
        self._busy: set[int] = set()
        self._failed: dict[int, Exception] = {}
        self._closed = False

    def add(self, number: int, order: int = NOW) -> None:
        """Has a file fetched; the smaller ``order``, the sooner."""
        with self._changed:
            self._wanted[number] = min(order, self._wanted.get(number, order))
            if len(self._threads) < FETCHES and not self._closed:
                self._threads.append(threading.Thread(target=self._work, name="fetch-shard", daemon=True))
                self._threads[-1].start()
            self._changed.notify_all()  # those that wait for a file, too

    def wait(self, number: int, cancelled: Callable[[], bool]) -> bool:
        """Fetches a file next; returns False if the queue is closed or the wait ``cancelled``. Raises: what ``fetch`` raised."""
        with self._changed:
            self._failed.pop(number, None)
            self.add(number)
            while number in self._wanted and number not in self._failed:
                if self._closed or cancelled():
                    return False
                self._changed.wait(POLL_S)
            if number in self._failed:
                raise self._failed.pop(number)
        return True

    def check_open(self) -> None:
        """Ends the fetch that calls it, if the queue has been closed."""
        if self._closed:
            raise _ClosedError

    def close(self) -> None:
        """Ends the threads at their next ``check_open``; one whose server is silent ends with the process."""
        with self._changed:
            self._closed = True
            self._wanted.clear()
            self._changed.notify_all()
        deadline = time.monotonic() + CLOSE_S
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))
        self._threads.clear()

    def _work(self) -> None:
        """A thread that fetches one file after the other."""
        while (number := self._next()) is not None:
            failure, again = None, False
            try:
                again = not self._fetch(number)
            except _ClosedError:
                return
            except Exception as error:  # noqa: BLE001 - raised for those that wait for the file
                failure = error
            with self._changed:
                self._busy.discard(number)
                if again:
                    self._later[number] = time.monotonic() + POLL_S
                else:
                    self._wanted.pop(number, None)
                if failure is not None:
                    self._failed[number] = failure
                self._changed.notify_all()

    def _next(self) -> int | None:
        """Waits for a file to fetch, the next that is needed; None if the queue is closed."""
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                free = [
                    (order, number)
                    for number, order in self._wanted.items()
                    if number not in self._busy and self._later.get(number, 0) <= now
                ]
                if free:
                    number = min(free)[1]
                    self._later.pop(number, None)
                    self._busy.add(number)
                    return number
                self._changed.wait(POLL_S if self._later else None)
        return None
