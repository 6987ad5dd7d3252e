"""Tests on real data are collected only if its folder is given; real faces are scored as outside of tests."""

from __future__ import annotations

import os

import pytest

from tests.real.landmarker import LANDMARKER

collect_ignore_glob = []
if "LRFR_REAL_DATA" not in os.environ:
    collect_ignore_glob.append("test_real_data.py")
if "LRFR_REAL_DATA" not in os.environ or not LANDMARKER.is_file():
    collect_ignore_glob.append("test_landmarks.py")
if "LRFR_GOLDEN" not in os.environ:
    collect_ignore_glob.append("test_golden.py")
if not {"LRFR_REAL_DATA", "LRFR_GOLDEN"} <= set(os.environ):
    collect_ignore_glob.append("test_end_to_end.py")


@pytest.fixture(autouse=True)
def _as_outside(all_resamples):
    """Intervals have all their resamples; those of other tests have fewer."""
