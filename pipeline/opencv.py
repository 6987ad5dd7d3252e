"""Process-wide settings of OpenCV and Pillow, changed for the length of a block."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import cv2


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
    before = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")
            yield
    finally:
        cv2.utils.logging.setLogLevel(before)
