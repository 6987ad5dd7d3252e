"""What bench speed gives: tables, JSON, chart."""

from __future__ import annotations

import json

import cv2
import pytest

from benchmarks.report.document import as_text
from benchmarks.speed.results import Scaling, as_table, write_chart, write_json
from tests.benchmarks.speed.test_timing import timing_of


@pytest.fixture
def scaling():
    return Scaling(
        stage="scale-x",
        title="Cost of x",
        unit="rows",
        sizes=[1000, 10_000, 100_000],
        costs={"seconds": [0.002, 0.02, 0.2], "MB": [10.0, 1000.0, 100_000.0]},
        facts={"cores": "2", "disk": "fast"},
    )


def test_the_table_has_medians_and_ratios_with_their_spread():
    lines = [" ".join(line.split()) for line in as_text(timing_of().grid()).splitlines()]
    assert lines[0] == "A step us each images/s x baseline of the floor"
    assert lines[2] == "plain 10,000.0 100 1.00 [1.00, 1.00] 0.17 [0.12, 0.25]"
    assert lines[4] == "ours 3,333.3 300 2.00 [1.00, 4.00] 0.50 [0.17, 0.50]"
    assert len(lines) == 7


def test_a_straight_line_through_the_logarithms_gives_the_power(scaling):
    assert scaling.exponent("seconds") == pytest.approx(1.0)
    assert scaling.exponent("MB") == pytest.approx(2.0)
    lines = [" ".join(line.split()) for line in as_text(scaling.grid()).splitlines()]
    assert lines[0] == "Cost of x seconds MB"
    assert lines[2:] == [
        "1,000 0.002 10",
        "10,000 0.02 1,000",
        "100,000 0.2 1e+05",
        "grows with the power 1.00 2.00",
    ]


def test_below_a_table_stands_what_was_timed_and_that_too_little_was():
    assert as_table(timing_of(), quick=False).splitlines()[-1] == "identities: 8"
    assert as_table(timing_of(), quick=True).splitlines()[-1].startswith("quick run: ")


def test_json_has_every_round(scaling, tmp_path):
    write_json([timing_of(), scaling], tmp_path / "a" / "speed.json", quick=True)
    timing, costs = json.loads((tmp_path / "a" / "speed.json").read_text())
    assert (timing["stage"], timing["unit"], timing["facts"]) == ("step", "images", {"identities": "8"})
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
    assert costs["costs"]["seconds"] == [0.002, 0.02, 0.2]
    assert costs["exponents"] == pytest.approx({"seconds": 1.0, "MB": 2.0})


def test_the_chart_is_a_picture_that_grows_with_what_was_timed(scaling, tmp_path):
    write_chart([timing_of()], tmp_path / "one.png", quick=False)
    write_chart([timing_of(), scaling], tmp_path / "b" / "two.png", quick=True)
    one, two = cv2.imread(str(tmp_path / "one.png")), cv2.imread(str(tmp_path / "b" / "two.png"))
    assert two.shape[0] > one.shape[0]
    assert two.std() > 0
    assert one.std() > 0
