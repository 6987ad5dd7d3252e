"""The memory of a plan, and that what bounds it changes nothing."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pipeline import philox
from pipeline.build import plan as plan_module
from pipeline.build.plan import Plan, make_plan
from pipeline.build.rejected import Rejected
from pipeline.sources.folder import Folder
from pipeline.tables import landmark_reader
from pipeline.tables.landmark_reader import read_landmarks
from pipeline.tables.landmark_table import LandmarkError
from pipeline.tables.row_values import RowValues
from pipeline.tables.text_column import TextColumn
from tools.costs import in_fresh_process, peak_mb
from tools.made_table import make_table

ROWS, FEW = 300_000, 10_000


def planned(table, **options) -> Plan:
    return make_plan(Folder().rows(table.parent, [table], aligning=True), **options)


def test_a_made_table_is_the_same_as_text_and_as_parquet(tmp_path):
    for name in ("table.csv", "table.parquet"):
        make_table(tmp_path / name, 5000, 230)
    text, parquet = (read_landmarks(tmp_path / name) for name in ("table.csv", "table.parquet"))
    assert text.keys.equals(parquet.keys)
    assert np.allclose(text.points, parquet.points, atol=0.006, equal_nan=True)
    assert set(text.problems) == set(parquet.problems)
    assert 20 < len(text.problems) < 90
    plan = planned(tmp_path / "table.csv", min_images=21)
    assert plan.rejected.counts()["bad-landmarks"] == len(text.problems)
    assert 2 < plan.rejected.counts()["duplicate-key"] < 8
    assert plan.rejected.counts()["too-few-images"] > 20
    assert len(plan.rejected) == plan.rejected.counts().total()


@pytest.mark.parametrize("rows", [1, 700])
@pytest.mark.parametrize("shuffled", [False, True])
def test_a_plan_is_the_same_however_many_rows_are_looked_at_at_once(tmp_path, monkeypatch, rows, shuffled):
    rng = np.random.default_rng(3)
    people = rng.integers(40, size=1500)
    people = people if shuffled else np.sort(people)
    keys = [f"{'/data/' if row % 9 == 0 else ''}n{who}/{rng.integers(30)}" for row, who in enumerate(people.tolist())]
    keys += ["Rene\u0301/1", "Ren\u00e9/2", "Ren\u00e9/1", "odd"]
    points = [f"{row % 50 + 10},2,30,4,5,60,7,80,9,10" if row % 31 else "x,,,,,,,,," for row in range(len(keys))]
    table = tmp_path / "table.csv"
    table.write_text("".join(f"{key},{numbers}\n" for key, numbers in zip(keys, points, strict=True)))
    options = {"exclude": ["n3", "n4/7", "nobody"], "min_images": 9}
    expected = planned(table, **options)
    for name in ("CHUNK_ROWS", "SORTED_ROWS", "COUNTED_ROWS"):
        monkeypatch.setattr(plan_module, name, rows)
    found = planned(table, **options)
    assert set(expected.rejected.counts()) == {
        *("bad-landmarks", "bad-key", "duplicate-key", "excluded", "too-few-images")
    }
    assert found.rejected == expected.rejected
    assert found.labels.tolist() == expected.labels.tolist()
    assert [shard.tolist() for shard in found.shards] == [shard.tolist() for shard in expected.shards]
    assert found.identities.to_pylist() == expected.identities.to_pylist()
    assert found.unmatched_exclusions == expected.unmatched_exclusions == ["nobody"]
    first = found.first_rows()
    assert first.tolist() == expected.first_rows().tolist()
    assert sorted(found.labels[first].tolist()) == list(range(found.identity_count))


@pytest.mark.parametrize("sorted_numbers", [64, 999])
def test_a_permutation_that_is_sorted_in_parts_is_the_same(monkeypatch, sorted_numbers):
    expected = {count: philox.permutation(5, 2, count) for count in (0, 1, 999, 1000, 1001)}
    monkeypatch.setattr(philox, "SORTED_NUMBERS", sorted_numbers)
    monkeypatch.setattr(philox, "BLOCK_NUMBERS", 17)
    for count, order in expected.items():
        found = philox.permutation(5, 2, count)
        assert found.dtype == order.dtype
        assert found.tolist() == order.tolist()


def added_by_plan(table) -> float:
    plan_module.CHUNK_ROWS = plan_module.SORTED_ROWS = plan_module.COUNTED_ROWS = FEW
    philox.SORTED_NUMBERS = philox.BLOCK_NUMBERS = landmark_reader.PARQUET_BLOCK_ROWS = FEW
    planned(table.with_name("first.parquet"), min_images=2)  # what is imported, and the memory of pools
    before = peak_mb()
    plan = planned(table, min_images=2)
    assert len(plan.keys) == ROWS
    return peak_mb() - before


def test_a_plan_takes_a_hundred_bytes_a_row(tmp_path, monkeypatch):
    """As of 42 million rows; of so few, the fixed memory of blocks is kept small beside it."""
    monkeypatch.setattr("tools.made_table.CHUNK_ROWS", FEW)
    make_table(tmp_path / "first.parquet", 2 * FEW, 1000)
    make_table(tmp_path / "table.parquet", ROWS, ROWS // 20)
    assert in_fresh_process(added_by_plan, tmp_path / "table.parquet") * 1e6 / ROWS < 100


def test_names_that_are_too_long_for_arrow_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.tables.text_column.MAX_BYTES", 20)
    (tmp_path / "long.csv").write_text("".join(f"/very/long/n1/{row},1,2,3,4,5,6,7,8,9,10\n" for row in range(4)))
    assert read_landmarks(tmp_path / "long.csv", identities=True).keys.to_pylist() == [f"n1/{row}" for row in range(4)]
    with pytest.raises(LandmarkError, match=r"long\.csv: the names have more than 2 GiB"):
        read_landmarks(tmp_path / "long.csv")


def test_text_is_joined():
    column = TextColumn(7)
    column.append(pa.array(["", "ab", "c\u00e9", "d"]).slice(1, 2))
    column.append(pa.array([], pa.string()))
    column.append(pa.array(["", ""]))
    column.append(pa.array(["xyz"]))
    joined = column.array()
    joined.validate(full=True)
    assert joined.to_pylist() == ["ab", "c\u00e9", "", "", "xyz"]


def test_values_of_rows():
    values = RowValues()
    for row, value in ((2, "a"), (5, "b"), (900, "a")):
        values.append(row, value)
    assert values == {2: "a", 5: "b", 900: "a"}
    assert values.each(str.upper) == {2: "A", 5: "B", 900: "A"}
    assert (values.get(3), values.get(901), 5 in values, 4 in values) == (None, None, True, False)


def test_rejected_rows():
    rejected = Rejected(6)
    rejected.update({4: ("bad-landmarks", "x"), 1: ("bad-landmarks", "y")})
    rejected.add(np.array([1]), "bad-key", "z")
    rejected.add_duplicates(np.array([5, 3]), np.array([0, 2]), lambda row: f"as row {row}")
    duplicates = {3: ("duplicate-key", "as row 2"), 5: ("duplicate-key", "as row 0")}
    expected = {1: ("bad-key", "z"), 4: ("bad-landmarks", "x")} | duplicates
    assert rejected == expected
    assert dict(rejected.counts()) == {"bad-key": 1, "bad-landmarks": 1, "duplicate-key": 2}
    assert rejected.stored.tolist() == [True, False, True, False, False, False]
    assert rejected.among(np.array([0, 5, 1])) == {1: expected[5], 2: expected[1]}
    assert [row in rejected for row in range(6)] == [row in expected for row in range(6)]
    with pytest.raises(KeyError):
        rejected[0]
