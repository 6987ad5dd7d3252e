"""Landmark tables: what is taken for one, and the row of whatever is odd."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.errors import ProtocolError
from pipeline.sources.points import read_points

FIVE = [
    f"a/{name}.jpg," + ",".join(str(10 * number + value) for value in range(10)) for number, name in enumerate("xyz")
]
FOUR = [",".join(line.split(",")[:9]) for line in FIVE]


def write(path, lines):
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("four_points", [False, True])
def test_a_torn_row_is_named_and_makes_no_four_point_file(tmp_path, at, four_points):
    path = write(tmp_path / "LFW.csv", FIVE[:at] + FOUR[at : at + 1] + FIVE[at + 1 :])
    with pytest.raises(ProtocolError) as error:
        read_points([path], four_points)
    assert str(error.value).startswith(f"{path}: line {at + 1}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("torn", ["a/t.jpg,1,2,3,4,5,6,7", "a/t.jpg,1,2,3,4,5,6,7,8,9,10"])
def test_a_torn_row_of_a_four_point_file_is_named(tmp_path, at, torn):
    path = write(tmp_path / "points.txt", ["image x y", *FOUR[:at], torn, *FOUR[at:]])
    with pytest.raises(ProtocolError) as error:
        read_points([path], four_points=True)
    assert str(error.value).startswith(f"{path}: line {at + 2}: {torn.count(',')} numbers, expected 8 as in the others")


def test_four_points_are_taken_only_where_they_are_meant(tmp_path):
    path = write(tmp_path / "LFW.csv", FOUR)
    assert [len(found.points) for found in read_points([path], four_points=True).rows.values()] == [4, 4, 4]
    with pytest.raises(ProtocolError, match=r"line 1: found 'a/x\.jpg,0,1,2,3,4,5,6,7', expected the header"):
        read_points([path])


def parquet(path, keys, first=0.0):
    values = pa.array([[first + number] * 10 for number in range(len(keys))], pa.list_(pa.float64()))
    pq.write_table(pa.table({"key": keys, "landmarks": values}), path)
    return path


def test_a_row_repeated_with_other_numbers_is_named(tmp_path):
    path = write(tmp_path / "a.csv", [*FIVE, FIVE[1]])
    assert len(read_points([path]).rows) == 3  # the same numbers: no harm
    path = write(tmp_path / "a.csv", [*FIVE, "b/y.png" + ",5" * 10])
    with pytest.raises(ProtocolError) as error:
        read_points([path])
    assert str(error.value) == f"{path}: b/y has other numbers in a.csv row 4 than in a.csv row 2; keep one of them"
    other = parquet(tmp_path / "b.parquet", ["q", "z"])
    with pytest.raises(ProtocolError) as error:
        read_points([write(tmp_path / "a.csv", FIVE), other])
    assert str(error.value) == f"{other}: z has other numbers in b.parquet row 2 than in a.csv row 3; keep one of them"


def test_a_row_repeated_without_numbers_is_no_contradiction(tmp_path):
    path = write(tmp_path / "a.csv", ["x.jpg" + ",nan" * 10] * 2)
    assert len(read_points([path]).rows) == 1


def test_landmarks_say_where_they_are_from(tmp_path):
    table = read_points([write(tmp_path / "a.csv", FIVE), parquet(tmp_path / "b.parquet", ["q"])])
    assert [table.of(Path(f"far/{name}.PNG")).place for name in "XQ"] == ["a.csv row 1", "b.parquet row 1"]
    absent = table.of(Path("none.jpg"))
    assert (absent.points, absent.place) == ((), "a.csv, b.parquet")


@pytest.mark.filterwarnings("error")
def test_numbers_beyond_float32_are_no_numbers_and_warn_of_nothing(tmp_path):
    csv = write(tmp_path / "a.csv", ["x.jpg" + ",1e300" * 10, "y.jpg" + ",oops" * 10])
    text = write(tmp_path / "b.txt", ["p" + " 1e300" * 8, "q" + " 1e300" * 8])
    index = parquet(tmp_path / "c.parquet", ["r"], first=1e300)
    table = read_points([csv, text, index], four_points=True)
    assert {name: found.points[0][0] for name, found in table.rows.items() if name != "y"} == dict.fromkeys(
        "xpqr", float("inf")
    )


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.txt"])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(ProtocolError, match="not a regular file; expected a table of landmarks"):
        read_points([tmp_path / name], four_points=True)


def test_a_parquet_file_of_ragged_lists_is_told(tmp_path):
    pq.write_table(pa.table({"key": ["x", "y"], "landmarks": [[1.0] * 10, [1.0] * 9]}), tmp_path / "a.parquet")
    with pytest.raises(ProtocolError, match="not a table with columns key and landmarks"):
        read_points([tmp_path / "a.parquet"])
