"""Process-wide settings of OpenCV and Pillow, changed for the length of a block."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

import cv2

_PILLOW_LOG = logging.getLogger("PIL")


@contextlib.contextmanager
def single_thread() -> Iterator[None]:
    """Runs OpenCV functions in one thread; for code that already runs in one process per core."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Stops OpenCV and Pillow from printing warnings, such as those about damaged images."""
    before, pillow_before = cv2.utils.logging.getLogLevel(), _PILLOW_LOG.level
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    _PILLOW_LOG.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")
            yield
    finally:
        cv2.utils.logging.setLogLevel(before)
        _PILLOW_LOG.setLevel(pillow_before)
