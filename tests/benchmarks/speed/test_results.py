"""The output of bench speed: tables, JSON, chart."""

from __future__ import annotations

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from benchmarks.speed.results import as_rate, as_table, machine, write_chart, write_json
from benchmarks.speed.timing import Contender, compare_times
from tests.benchmarks.speed.timings import timing_of
from tests.processes import REPOSITORY


def lines_of(timing, quick=False):
    return [" ".join(line.split()) for line in as_table(timing, quick=quick).splitlines()]


def test_the_table_has_medians_and_ratios_with_their_spread():
    lines = lines_of(timing_of())
    assert lines[0] == "A step us each images/s x baseline of the floor"
    assert lines[2] == "plain 10,000.0 100 1.00 [1.00, 1.00] 0.17 [0.12, 0.25]"
    assert lines[4] == "ours 3,333.3 300 2.00 [1.00, 4.00] 0.50 [0.17, 0.50]"
    assert lines[7:] == ["identities: 8"]


def test_a_quick_run_has_a_warning():
    assert lines_of(timing_of(), quick=True)[8].startswith("quick run: ")


def test_a_contender_with_another_result_has_no_ratios():
    lines = lines_of(timing_of(plain="float32", ours="float32", slow="more"))
    assert lines[3] == "slow 13,333.3 75"
    assert lines[4] == "ours 3,333.3 300 2.00 [1.00, 4.00]"


def test_without_a_floor_the_table_has_no_column_for_it():
    timing = compare_times("x", "An x", [Contender("a", "ours", int, 1)], unit="images", rounds=1, facts={})
    assert lines_of(timing)[0] == "An x us each images/s"
    assert len(lines_of(timing)) == 3


@pytest.mark.parametrize(("rate", "text"), [(12345.6, "12,346"), (100.4, "100"), (99.44, "99.4"), (0.12345, "0.123")])
def test_low_rates_keep_three_digits(rate, text):
    assert as_rate(rate) == text


def test_the_machine_is_described():
    facts = machine()
    assert {"processor", "cores", "system", "files in", "python", "numpy", "torch", "opencv"} <= set(facts)
    assert all(facts.values())
    assert int(facts["cores"]) >= 1


def test_json_has_every_round(tmp_path):
    write_json([timing_of(), timing_of()], tmp_path / "a" / "speed.json", quick=True)
    timing, again = json.loads((tmp_path / "a" / "speed.json").read_text())
    assert again == timing
    assert list(timing) == ["stage", "title", "unit", "facts", "contenders", "machine", "quick"]
    assert (timing["stage"], timing["title"], timing["unit"]) == ("step", "A step", "images")
    assert timing["facts"] == {"identities": "8"}
    assert timing["quick"] is True
    assert int(timing["machine"]["cores"]) >= 1
    assert timing["contenders"]["ours"] == {
        "role": "ours",
        "gives": "",
        "amount": 30,
        "seconds": [0.1, 0.1, 0.3],
        "rate": pytest.approx(300),
        "times_baseline": pytest.approx(2.0),
        "of_floor": pytest.approx(0.5),
    }


def test_the_chart_grows_with_the_number_of_timings(tmp_path):
    write_chart([timing_of()], tmp_path / "one.png", quick=False)
    write_chart([timing_of(), timing_of()], tmp_path / "b" / "two.png", quick=True)
    one, two = cv2.imread(str(tmp_path / "one.png")), cv2.imread(str(tmp_path / "b" / "two.png"))
    assert two.shape[0] > 1.8 * one.shape[0]
    blue = np.array([180, 119, 31])  # of ours
    assert (np.abs(two.astype(int) - blue).max(axis=2) < 3).sum() > 1000


def test_drawing_does_not_choose_a_backend(tmp_path):
    code = """
import pathlib, sys
from benchmarks.speed.results import write_chart
from tests.benchmarks.speed.timings import timing_of
write_chart([timing_of()], pathlib.Path(sys.argv[1]), quick=False)
print("matplotlib.pyplot" in sys.modules)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "a.png")]
    assert subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True).stdout == "False\n"
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
