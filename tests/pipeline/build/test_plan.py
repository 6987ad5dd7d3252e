"""Which of several rows with one key is used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.build.plan import make_plan
from pipeline.sources.landmarks import LandmarkTable, TableFile


def table_of(keys, problems):
    file = TableFile(path=Path("a.csv"), rows=len(keys))
    points = np.zeros((len(keys), 10), np.float32)
    return LandmarkTable(keys=pa.array(keys), points=points, problems=problems, files=[file])


@pytest.mark.parametrize("chunk_rows", [1, 3, 200_000])
@pytest.mark.parametrize("seed", range(4))
def test_the_first_usable_row_of_a_key_is_used(monkeypatch, chunk_rows, seed):
    monkeypatch.setattr("pipeline.build.plan.CHUNK_ROWS", chunk_rows)
    rng = np.random.default_rng(seed)
    keys = [f"n{person}/{image}" for person, image in rng.integers(4, size=(60, 2))] + ["odd", "odd"]
    problems = {int(row): "P1X is missing" for row in rng.choice(60, 15, replace=False)}
    table = table_of(keys, problems)
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
    assert make_plan(table_of(["odd"], {})).rejected == {0: ("bad-key", "the name is not identity/image")}
