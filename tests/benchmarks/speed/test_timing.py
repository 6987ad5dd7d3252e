"""Timings: interleaved, compared round by round."""

from __future__ import annotations

import sys
import time

import pytest

from benchmarks.speed.timing import Contender, against_first, compare_times
from tests.benchmarks.speed.timings import timing_of


def test_rounds_are_interleaved_and_the_first_ones_do_not_count():
    called = []
    contenders = [
        Contender("plain", "baseline", lambda: called.append("p"), 4),
        Contender("ours", "ours", lambda: called.append("o"), 2, prepare=lambda: called.append("-")),
    ]
    timing = compare_times("x", "An x", contenders, unit="images", rounds=3, warmup=2, facts={"a": "b"})
    assert "".join(called) == "p-o" * 5
    assert [(name, row.role, row.amount) for name, row in timing.rows.items()] == [
        ("plain", "baseline", 4),
        ("ours", "ours", 2),
    ]
    assert all(row.seconds.shape == (3,) for row in timing.rows.values())
    assert (timing.stage, timing.title, timing.unit, timing.facts) == ("x", "An x", "images", {"a": "b"})


def test_the_slower_contender_has_the_lower_rate_and_preparing_is_not_timed(monkeypatch):
    def passes(seconds):
        now[0] += seconds

    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    contenders = [
        Contender("plain", "baseline", lambda: passes(5), 1),
        Contender("ours", "ours", lambda: passes(2), 1, prepare=lambda: passes(10)),
    ]
    timing = compare_times("x", "An x", contenders, unit="images", rounds=3, facts={})
    assert timing.ratios("ours", "baseline") == pytest.approx([2.5] * 3)


def test_two_contenders_must_not_share_a_name():
    with pytest.raises(AssertionError, match="two contenders share a name"):
        compare_times("x", "An x", [Contender("a", "ours", int, 1)] * 2, unit="images", rounds=1, facts={})


def test_a_rate_uses_the_contenders_own_amount():
    rows = timing_of().rows
    assert rows["plain"].rates == pytest.approx([150, 75, 100])
    assert rows["decode2"].rates == pytest.approx([600, 600, 600])
    assert rows["plain"].rate == pytest.approx(100)


def test_ratios_compare_round_by_round_with_the_fastest_contender_of_a_role():
    timing = timing_of()
    assert timing.ratios("ours", "baseline") == pytest.approx([2, 4, 1])
    assert timing.ratios("ours", "floor") == pytest.approx([0.5, 0.5, 1 / 6])  # decode2


def test_without_a_floor_there_is_no_ratio_to_it():
    timing = compare_times("x", "An x", [Contender("ours", "ours", int, 1)], unit="images", rounds=1, facts={})
    assert timing.ratios("ours", "floor") is None
    assert timing.ratios("ours", "baseline") is None
    assert timing.to_dict()["contenders"]["ours"]["times_baseline"] is None


def test_only_contenders_with_the_same_result_are_compared():
    timing = timing_of(plain="float32", ours="float32", slow="more")
    assert timing.ratios("ours", "baseline") == pytest.approx([2, 4, 1])
    assert timing.ratios("slow", "baseline") is None
    assert timing.ratios("ours", "floor") is None
    assert timing.to_dict()["contenders"]["slow"]["times_baseline"] is None


def test_the_progress_of_what_is_timed_is_hidden(capsys):
    timing = compare_times(
        "x",
        "An x",
        [Contender("a", "ours", lambda: print("within", file=sys.stderr), 1)],
        unit="images",
        rounds=1,
        facts={},
    )
    print("after", file=sys.stderr)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("bench speed x: ")
    assert "2/2 calls" in lines[-2]
    assert lines[-1] == "after"
    assert "within" not in lines
    assert timing.rows["a"].seconds[0] > 0


def test_the_first_run_is_the_baseline():
    contenders = against_first({"plain": int, "ours": int, "other": int}, 3)
    assert [(each.name, each.role, each.amount) for each in contenders] == [
        ("plain", "baseline", 3),
        ("ours", "ours", 3),
        ("other", "ours", 3),
    ]
