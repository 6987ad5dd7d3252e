"""Landmark tables of four points, as Parquet, from pipes and of other kinds of file."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.tables.landmark_reader import read_landmarks
from pipeline.tables.landmark_table import LandmarkError
from tests.pipeline.tables.landmark_tables import FIVE, FOUR, HEAD, NUMBERS, POINTS, write


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("four_points", [False, True])
def test_one_short_row_is_reported_and_does_not_make_a_four_point_file(tmp_path, at, four_points):
    path = write(tmp_path / "LFW.csv", FIVE[:at] + FOUR[at : at + 1] + FIVE[at + 1 :])
    with pytest.raises(LandmarkError) as error:
        read_landmarks([path], four_points=four_points)
    assert str(error.value).startswith(f"{path}: line {at + 1}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("torn", ["a/t.jpg,1,2,3,4,5,6,7", "a/t.jpg,1,2,3,4,5,6,7,8,9,10"])
def test_a_short_row_of_a_four_point_file_is_reported(tmp_path, at, torn):
    path = write(tmp_path / "points.txt", ["image x y", *FOUR[:at], torn, *FOUR[at:]])
    with pytest.raises(LandmarkError) as error:
        read_landmarks([path], four_points=True)
    assert str(error.value).startswith(f"{path}: line {at + 2}: {torn.count(',')} numbers, expected 8: x and y of")


def test_four_points_are_accepted_only_on_request(tmp_path):
    path = write(tmp_path / "LFW.csv", FOUR)
    table = read_landmarks([path], four_points=True)
    assert [table.landmarks(row).points for row in range(3)] == [
        tuple((10.0 * row + x, 10.0 * row + x + 1) for x in (0, 2, 4, 6)) for row in range(3)
    ]
    with pytest.raises(LandmarkError, match=r"line 1: found 'a/x\.jpg,0,1,2,3,4,5,6,7', expected the header"):
        read_landmarks([path])


def test_files_of_every_kind_are_read_into_one_table(tmp_path):
    values = [[20.5 + value for value in range(10)], None]
    pq.write_table(pa.table({"landmarks": values, "key": ["b/1.png", "b/2"]}), tmp_path / "b.parquet")
    text = write(tmp_path / "c.txt", ["image x y", '"c1.jpg"; 1; 2; 3; 4; 5; 6; 7; 8', "c2 1 2 3 4 5 6 7 nan"])
    table = read_landmarks([write(tmp_path / "a.csv", FIVE), tmp_path / "b.parquet", text], four_points=True)
    assert table.keys.to_pylist() == ["a/x", "a/y", "a/z", "b/1", "b/2", "c1", "c2"]
    assert table.points[3].tolist() == values[0]
    assert [len(table.landmarks(row).points) for row in range(7)] == [5, 5, 5, 5, 5, 4, 4]
    assert table.landmarks(5).points == ((1.0, 2.0), (3.0, 4.0), (5.0, 6.0), (7.0, 8.0))
    assert np.isnan(table.points[5, 8:]).all()
    assert table.problems == {4: "the landmarks are missing", 6: "P4Y is 'nan', not a finite number"}
    places = [table.landmarks(row).place for row in (2, 4, 6)]
    assert places == ["a.csv row 3", "b.parquet row 2: the landmarks are missing", "c.txt row 2"]


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.list_(pa.float64()), pa.list_(pa.int32(), 10), pa.large_list(pa.float16())]
)
def test_parquet_lists_of_every_type_are_read(tmp_path, kind, monkeypatch):
    monkeypatch.setattr("pipeline.tables.landmark_reader.PARQUET_BLOCK_ROWS", 2)
    numbers = np.arange(50, dtype=np.float16).reshape(5, 10)
    values = pa.array(
        [None if row == 3 else list(numbers[row].astype(kind.value_type.to_pandas_dtype())) for row in range(5)], kind
    )
    pq.write_table(
        pa.table({"key": pa.array(list("abcde"), pa.large_string()), "landmarks": values}), tmp_path / "a.parquet"
    )
    table = read_landmarks([tmp_path / "a.parquet"])
    assert table.keys.to_pylist() == list("abcde")
    assert table.problems == {3: "the landmarks are missing"}
    assert np.array_equal(np.delete(table.points, 3, 0), np.delete(numbers, 3, 0))


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"key": ["x", "y"], "landmarks": [[1.0] * 10, [1.0] * 9]}, "row 2: 9 numbers, expected 10"),
        ({"key": ["x"], "points": [[1.0] * 10]}, "no column landmarks"),
        ({"name": ["x"]}, "no column key or landmarks"),
        ({"key": ["x"], "landmarks": [1.0]}, ""),
        ({"key": ["x"], "landmarks": [["a"] * 10]}, ""),
    ],
)
def test_another_parquet_table_is_refused(tmp_path, columns, reason):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(LandmarkError) as error:
        read_landmarks([path])
    assert str(error.value).startswith(f"{path}: not a table with columns key and landmarks ({reason}")
    assert "\n" not in str(error.value)


def test_the_column_of_names_may_be_called_path_and_be_anywhere(tmp_path):
    pq.write_table(pa.table({"landmarks": [POINTS], "path": ["n1/a.jpg"]}), tmp_path / "a.parquet")
    table = read_landmarks([tmp_path / "a.parquet"])
    assert (table.keys.to_pylist(), table.points.tolist()) == (["n1/a"], [POINTS])


def test_a_damaged_parquet_file_is_reported(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"not Parquet")
    with pytest.raises(LandmarkError, match=r"a\.parquet: not a table with columns key and landmarks"):
        read_landmarks([tmp_path / "a.parquet"])
    with pytest.raises(LandmarkError, match=r"none\.parquet: No such file or directory; expected a landmark CSV"):
        read_landmarks([tmp_path / "none.parquet"])


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.txt"])
def test_a_pipe_without_a_writer_is_refused(tmp_path, name, monkeypatch):
    monkeypatch.setattr("pipeline.tables.streams.PIPE_WAIT_S", 0.05)
    os.mkfifo(tmp_path / name)
    with pytest.raises(LandmarkError, match="a pipe that nobody writes to; expected a landmark CSV"):
        read_landmarks([tmp_path / name], four_points=True)


def test_devices_sockets_and_folders_are_refused(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.path.relpath(tmp_path / "socket.csv"))
    for path in (tmp_path / "folder.csv", tmp_path / "socket.csv", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(LandmarkError, match="expected a landmark CSV"):
            read_landmarks([path])
    listener.close()


@pytest.mark.parametrize("kind", ["csv", "blanks", "parquet"])
def test_a_pipe_with_a_writer_gives_the_same_table_as_the_file(tmp_path, kind):
    file, pipe = tmp_path / f"a.{kind}", tmp_path / "pipe"
    if kind == "parquet":
        pq.write_table(pa.table({"key": ["n1/a"] * 20_000, "landmarks": [POINTS] * 20_000}), file)
    else:
        lines = f"{HEAD}\n" + f"n1/a,{NUMBERS}\n" * 20_000
        file.write_text(lines.replace(",", " ") if kind == "blanks" else lines)
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(file.read_bytes(),))
    writer.start()
    found, expected = read_landmarks([pipe]), read_landmarks([file])
    writer.join()
    assert found.keys.equals(expected.keys)
    assert np.array_equal(found.points, expected.points)
    assert found.files[0].sha256 == expected.files[0].sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
