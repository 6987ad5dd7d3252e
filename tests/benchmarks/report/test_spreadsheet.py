"""Results as CSV."""

from __future__ import annotations

import csv
import dataclasses
import io

import pytest

from benchmarks.report.spreadsheet import COLUMNS, as_csv


def rows_of(results):
    return list(csv.DictReader(io.StringIO(as_csv(results))))


def test_a_row_for_each_network_benchmark_and_metric(results):
    rows = rows_of(results.values())
    assert list(rows[0]) == list(COLUMNS)
    keys = [(row["network"], row["benchmark"], row["key"]) for row in rows]
    assert len(keys) == len(set(keys)) == sum(len(one.metrics) + len(one.thresholds) for one in results.values())
    for row in rows:
        result, key = results[row["benchmark"]], row["key"]
        assert float(row["value"]) == {**result.metrics, **result.thresholds}[key]
        assert (float(row["low"]), float(row["high"])) == {**result.intervals, **result.threshold_intervals}[key]
        assert row["data"] == result.data
    found = {key: (row["metric"], row["n"]) for (_, name, key), row in zip(keys, rows, strict=True) if name == "scface"}
    assert found["rank1@d1"] == ("rank-1, all subjects, 4.2 m", "40")
    assert found["rank1@d1/51-130"] == ("rank-1, subjects 51-130, 4.2 m", "25")
    assert rows[0]["metric"] == "HR to LR, accuracy, 8 px"


@pytest.mark.parametrize("first", "=+-@\t\r")
def test_names_are_no_formulas(results, first):
    name = f'{first}HYPERLINK("http://x")'
    result = dataclasses.replace(results["tinyface"], checkpoint={"name": name, "digest": name}, data=name)
    result = dataclasses.replace(result, benchmark=name, caveats=[name])
    rows = rows_of([result])
    assert len(rows) == 5
    shown = f"'{name}" if first in "=+-@" else name.replace("\t", "\\t").replace("\r", "\\r")
    for row in rows:
        assert [row[column] for column in ("network", "digest", "benchmark", "data", "caveats")] == [shown] * 5


def test_networks_of_one_label_are_distinguished(results):
    qmul = results["qmul"]
    other = dataclasses.replace(qmul, checkpoint={**qmul.checkpoint, "digest": "11ee"})
    names = {row["network"] for row in rows_of([qmul, other, results["tinyface"]])}
    assert names == {"spherenet4, step 7, 00ff", "spherenet4, step 7, 11ee"}
