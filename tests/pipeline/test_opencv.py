"""Process-wide settings of OpenCV and Pillow are changed within a block and restored after it."""

from __future__ import annotations

import logging
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
        with single_thread():
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
    with quiet():
        cv2.imdecode(truncated_png(), cv2.IMREAD_COLOR)
    assert capfd.readouterr().err == ""
    cv2.imdecode(truncated_png(), cv2.IMREAD_COLOR)
    assert "WARN" in capfd.readouterr().err


def test_pillow_is_quiet_within_the_block_only():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with quiet():
            warnings.warn_explicit("x", UserWarning, "TiffImagePlugin.py", 1, module="PIL.TiffImagePlugin")
            warnings.warn_explicit("y", UserWarning, "ours.py", 1, module="ours")
        warnings.warn_explicit("z", UserWarning, "TiffImagePlugin.py", 1, module="PIL.TiffImagePlugin")
    assert [str(one.message) for one in seen] == ["y", "z"]


def test_the_log_of_pillow_is_quiet_within_the_block_only(caplog):
    with quiet():
        logging.getLogger("PIL.TiffImagePlugin").error("x")
    assert not caplog.records
    logging.getLogger("PIL.TiffImagePlugin").error("y")
    assert caplog.messages == ["y"]
