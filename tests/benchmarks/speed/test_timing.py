"""Timings: interleaved, compared round by round."""

from __future__ import annotations

import os
import sys
import time

import numpy as np
import pytest

from benchmarks.speed.timing import Contender, Timing, compare_times, machine, rounded, silence


def contender(name, run, role="ours", amount=1, **settings):
    return Contender(name=name, role=role, run=run, amount=amount, **settings)


def timing_of():
    """Made up: a plain way, two of ours and two floors, the second of which is the quicker."""
    return Timing(
        stage="step",
        title="A step",
        unit="images",
        roles={"plain": "baseline", "slow": "ours", "ours": "ours", "decode": "floor", "decode2": "floor"},
        amounts={"plain": 30, "slow": 30, "ours": 30, "decode": 60, "decode2": 60},
        seconds={
            "plain": np.array([0.2, 0.4, 0.3]),
            "slow": np.array([0.4, 0.4, 0.6]),
            "ours": np.array([0.1, 0.1, 0.3]),
            "decode": np.array([0.1, 0.2, 0.2]),
            "decode2": np.array([0.1, 0.1, 0.1]),
        },
        gives={"plain": "", "slow": "", "ours": "", "decode": "", "decode2": ""},
        facts={"identities": "8"},
    )


def test_rounds_are_interleaved_and_the_first_do_not_count():
    called = []
    contenders = [
        contender("plain", lambda: called.append("p"), role="baseline", amount=4),
        contender("ours", lambda: called.append("o"), amount=2, prepare=lambda: called.append("-")),
    ]
    timing = compare_times("x", "An x", contenders, unit="images", rounds=3, warm_up=2, facts={"a": "b"})
    assert "".join(called) == "p-o" * 5
    assert {name: seconds.shape for name, seconds in timing.seconds.items()} == {"plain": (3,), "ours": (3,)}
    assert (timing.stage, timing.title, timing.unit) == ("x", "An x", "images")
    assert timing.roles == {"plain": "baseline", "ours": "ours"}
    assert timing.amounts == {"plain": 4, "ours": 2}
    assert timing.facts == {"a": "b"}


def test_what_takes_longer_is_found_slower_and_preparing_is_not_timed():
    contenders = [
        contender("plain", lambda: time.sleep(0.05), role="baseline"),
        contender("ours", lambda: time.sleep(0.005), prepare=lambda: time.sleep(0.1)),
    ]
    timing = compare_times("x", "An x", contenders, unit="images", rounds=3, facts={})
    assert np.median(timing.ratios("ours", "baseline")) > 1.5


def test_a_rate_is_of_each_contenders_own_amount():
    assert timing_of().rate("plain") == pytest.approx([150, 75, 100])
    assert timing_of().rate("decode2") == pytest.approx([600, 600, 600])


def test_ratios_go_round_by_round_and_to_the_quickest_of_a_role():
    timing = timing_of()
    assert timing.ratios("ours", "baseline") == pytest.approx([2, 4, 1])
    assert timing.reference("ours", "floor") == "decode2"
    assert timing.ratios("ours", "floor") == pytest.approx([0.5, 0.5, 1 / 6])


def test_without_a_floor_there_is_no_share_of_it():
    timing = compare_times("x", "An x", [contender("ours", lambda: None)], unit="images", rounds=1, facts={})
    assert timing.reference("ours", "floor") is None
    assert timing.ratios("ours", "baseline") is None
    assert timing.grid().header == ["", "us each", "images/s"]
    assert len(timing.grid().rows[0]) == 3
    assert timing.to_dict()["contenders"]["ours"]["times_baseline"] is None


def test_only_what_gives_the_same_is_compared():
    timing = timing_of()
    timing.gives.update(plain="float32", ours="float32", slow="more")
    assert timing.ratios("ours", "baseline") == pytest.approx([2, 4, 1])
    assert timing.reference("slow", "baseline") is None
    assert timing.reference("ours", "floor") is None
    rows = {row[0]: row[3:] for row in timing.grid().rows}
    assert rows["slow"] == ["", ""]
    assert rows["ours"] == ["2.00 [1.00, 4.00]", ""]
    assert timing.to_dict()["contenders"]["slow"]["times_baseline"] is None


def test_the_machine_is_described():
    facts = machine()
    assert {"processor", "cores", "system", "python", "numpy", "torch", "opencv"} <= set(facts)
    assert all(facts.values())
    assert int(facts["cores"]) >= 1


@pytest.mark.parametrize(("rate", "text"), [(12345.6, "12,346"), (100.4, "100"), (99.44, "99.4"), (0.12345, "0.123")])
def test_low_rates_keep_three_digits(rate, text):
    assert rounded(rate) == text


def test_what_is_said_amid_a_timing_is_not_heard_but_what_is_said_after_an_error_is(capfd, monkeypatch):
    stream = open(2, "w", closefd=False)  # noqa: SIM115 (it keeps what is not a line)
    monkeypatch.setattr(sys, "stderr", stream)

    def interrupted():
        with silence():
            os.write(2, b"within")
            print("half a line", end="", file=stream)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    print("after", end="", file=stream, flush=True)
    assert capfd.readouterr().err == "after"
