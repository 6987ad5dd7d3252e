"""Which of several rows with one key counts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pipeline import plan as plan_module
from pipeline.build.plan import make_plan
from pipeline.sources.landmarks import LandmarkTable


@pytest.mark.parametrize("at_once", [1, 3, 200_000])
@pytest.mark.parametrize("seed", range(4))
def test_the_first_usable_row_of_a_key_counts(monkeypatch, at_once, seed):
    monkeypatch.setattr(plan_module, "_AT_ONCE", at_once)
    rng = np.random.default_rng(seed)
    keys = [f"n{person}/{image}" for person, image in rng.integers(4, size=(60, 2))] + ["odd", "odd"]
    problems = {int(row): "P1X is missing" for row in rng.choice(60, 15, replace=False)}
    table = LandmarkTable(
        keys=pa.array(keys), points=np.zeros((62, 10), np.float32), problems=problems, files=[("a.csv", 62)]
    )
    expected = dict.fromkeys(problems, ("bad-landmarks", "P1X is missing"))
    expected |= dict.fromkeys((60, 61), ("bad-key", "the name is not identity/image"))
    seen = {}
    for row, key in enumerate(keys):
        if row not in expected and seen.setdefault(key, row) != row:
            expected[row] = ("duplicate-key", f"NAME_ID given before, in a.csv row {seen[key] + 1}")
    made = make_plan(table)
    assert sum(status == "duplicate-key" for status, _ in expected.values()) > 10
    assert made.rejected == expected
    assert made.identities.to_pylist() == [key.split("/")[0] for key in keys]


def test_a_table_without_a_usable_row():
    table = LandmarkTable(
        keys=pa.array(["odd"]), points=np.zeros((1, 10), np.float32), problems={}, files=[("a.csv", 1)]
    )
    assert make_plan(table).rejected == {0: ("bad-key", "the name is not identity/image")}
