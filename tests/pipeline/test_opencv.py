"""Process-wide settings of OpenCV and Pillow are changed within a block and restored after it."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings

import cv2
import numpy as np
import pytest

from pipeline.opencv import quiet, single_thread


def truncated_png():
    png = cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))[1]
    return png[: len(png) // 2]


def test_threads_are_restored_even_after_an_error():
    def failing():
        with single_thread:
            assert cv2.getNumThreads() == 1
            raise ZeroDivisionError

    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    try:
        with pytest.raises(ZeroDivisionError):
            failing()
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)


def test_a_damaged_image_prints_a_warning_outside_the_block_only(capfd):
    with quiet:
        cv2.imdecode(truncated_png(), cv2.IMREAD_COLOR)
    assert capfd.readouterr().err == ""
    cv2.imdecode(truncated_png(), cv2.IMREAD_COLOR)
    assert "WARN" in capfd.readouterr().err


def test_pillow_is_quiet_within_the_block_only():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with quiet:
            warnings.warn_explicit("x", UserWarning, "TiffImagePlugin.py", 1, module="PIL.TiffImagePlugin")
            warnings.warn_explicit("y", UserWarning, "ours.py", 1, module="ours")
        warnings.warn_explicit("z", UserWarning, "TiffImagePlugin.py", 1, module="PIL.TiffImagePlugin")
    assert [str(one.message) for one in seen] == ["y", "z"]


def test_the_log_of_pillow_is_quiet_within_the_block_only(caplog):
    with quiet:
        logging.getLogger("PIL.TiffImagePlugin").error("x")
    assert not caplog.records
    logging.getLogger("PIL.TiffImagePlugin").error("y")
    assert caplog.messages == ["y"]


def settings():
    return cv2.getNumThreads(), cv2.utils.logging.getLogLevel(), logging.getLogger("PIL").level, list(warnings.filters)


def test_blocks_of_two_threads_that_overlap_restore_the_settings():
    before = settings()
    cv2.setNumThreads(3)
    try:
        expected = settings()
        with contextlib.ExitStack() as first:
            first.enter_context(single_thread)
            first.enter_context(quiet)
            ready, end = threading.Event(), threading.Event()

            def second():
                with single_thread, quiet:
                    ready.set()
                    end.wait()

            thread = threading.Thread(target=second)
            thread.start()
            ready.wait()
            first.close()
            assert settings()[:3] == (1, 0, logging.CRITICAL + 1)  # for the second one
            end.set()
            thread.join()
        assert settings() == expected
    finally:
        cv2.setNumThreads(before[0])
