"""Timings: interleaved, compared round by round."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from benchmarks.document import as_text
from benchmarks.speed import Timing, compare_times, write_timing


def test_rounds_are_interleaved_and_the_first_do_not_count():
    called = []
    contenders = {"plain": lambda: called.append("p"), "ours": lambda: called.append("o")}
    timing = compare_times("x", contenders, unit="images", amount=4, rounds=3, warm_up=2, facts={"a": "b"})
    assert "".join(called) == "po" * 5
    assert {name: seconds.shape for name, seconds in timing.seconds.items()} == {"plain": (3,), "ours": (3,)}
    assert timing.machine["a"] == "b"


def test_what_takes_longer_is_found_slower():
    contenders = {"plain": lambda: time.sleep(0.02), "ours": lambda: time.sleep(0.005)}
    timing = compare_times("x", contenders, unit="images", amount=1, rounds=3, facts={})
    assert 1.5 < np.median(timing.ratios("ours")) < 8


def test_table_and_json(tmp_path):
    seconds = {"plain": np.array([0.2, 0.4, 0.3]), "ours": np.array([0.1, 0.1, 0.3])}
    timing = Timing(title="step", unit="images", amount=30, seconds=seconds, machine={"cores": "2"})
    lines = as_text(timing.grid()).splitlines()
    assert lines[2].split() == ["plain", "300.0", "100", "1.00", "[1.00,", "1.00]"]
    assert lines[3].split() == ["ours", "100.0", "300", "2.00", "[1.00,", "4.00]"]
    write_timing(timing, tmp_path / "a" / "step.json")
    content = json.loads((tmp_path / "a" / "step.json").read_text())
    assert content["seconds"]["ours"] == [0.1, 0.1, 0.3]
    assert content["ratios"] == pytest.approx({"plain": 1.0, "ours": 2.0})
