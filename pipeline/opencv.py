"""Process-wide settings of OpenCV and Pillow, changed for the length of a block."""

from __future__ import annotations

import contextlib
import logging

import cv2

from shards.process_setting import ProcessSetting, ignored_warnings

_PILLOW_LOG = logging.getLogger("PIL")

single_thread = ProcessSetting(cv2.getNumThreads, lambda: cv2.setNumThreads(1), cv2.setNumThreads)
"""Runs OpenCV functions in one thread; for code that already runs in one process per core."""


def _silence() -> contextlib.ExitStack:
    """Returns what restores the settings when it is closed."""
    stack = contextlib.ExitStack()
    stack.callback(cv2.utils.logging.setLogLevel, cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT))
    stack.callback(_PILLOW_LOG.setLevel, _PILLOW_LOG.level)
    _PILLOW_LOG.setLevel(logging.CRITICAL + 1)
    stack.enter_context(ignored_warnings("PIL"))
    return stack


quiet = ProcessSetting(_silence, lambda: None, contextlib.ExitStack.close)
"""Stops OpenCV and Pillow from printing warnings, such as those about damaged images."""
