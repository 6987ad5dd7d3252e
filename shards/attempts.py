"""Requests to an object store: again after failures that may pass, and several at a time."""

from __future__ import annotations

import concurrent.futures
import random
import time
from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

from shards.connection import StoreError, diagnose, library_errors
from shards.messages import print_stderr

CONCURRENT = 16  # requests in flight
TRIES = 8
MAX_WAIT_S = 30.0  # between two tries
_reported: set[str] = set()  # stores whose trouble this process has reported
T = TypeVar("T")


class PassingError(Exception):
    """A failure that a retry may cure."""


def attempt(url: str, name: str, work: Callable[[], T]) -> T:
    """Does ``work``; retries with growing pauses after a failure that may pass, and reports the first one of a store.

    Args:
        url: of the store.
        name: of the object, for messages; empty for the store itself.

    Raises:
        StoreError: the failure is permanent, or all tries failed.
        OSError: this machine is in trouble, such as a full disk.
    """
    place = f"{url}/{name}" if name else url
    errors = library_errors(url)
    for number in range(TRIES):
        try:
            return work()
        except PassingError as error:
            reason, remedy = str(error), "the path to the store damages data, or the object was replaced: mend it"
        except errors as error:
            if isinstance(error, OSError) and error.errno is not None:  # of this machine
                raise
            found = diagnose(error, url)
            reason, remedy = found.reason, found.remedy
            if not found.may_pass:
                raise StoreError(f"{place}: {reason}; {remedy}") from None
        if number + 1 == TRIES:
            break
        if url not in _reported:
            _reported.add(url)
            print_stderr(f"{place}: {reason}; trying again, {TRIES} times in all, as with later trouble")
        time.sleep(min(2.0**number, MAX_WAIT_S) * random.uniform(0.5, 1.0))
    raise StoreError(f"{place}: {reason}, {TRIES} times; {remedy}, then run the same command again")


def in_flight(work: Callable[[T], Any], items: Iterable[T], ahead: int = 2 * CONCURRENT) -> Generator[Any, None, None]:
    """Yields the results of ``work``, in order, with several requests in flight; an error ends it.

    Args:
        ahead: items that are begun before the result of the first is taken.
    """
    with concurrent.futures.ThreadPoolExecutor(min(CONCURRENT, ahead)) as pool:
        waiting: list[concurrent.futures.Future[Any]] = []
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= ahead:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()
