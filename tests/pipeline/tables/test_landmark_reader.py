"""The reader of landmark tables: all variants give the same table; malformed files are reported by file and line."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.tables.landmark_reader import read_landmarks
from pipeline.tables.landmark_table import HEADER, LandmarkError
from tests.pipeline.tables.landmark_tables import HEAD, NUMBERS, POINTS, read, write


@pytest.mark.parametrize(
    "text",
    [
        f'{HEAD}\n"n000001/0001_01",{NUMBERS}\n',
        f"{HEAD}\nn000001/0001_01,{NUMBERS}\n",
        f"{HEAD}\nn000001/0001_01.jpg,{NUMBERS}",
        f"{HEAD.lower()}\ntrain/n000001/0001_01.JPG,{NUMBERS}\n",
        f'{HEAD}\r\n"test/n000001/0001_01",{NUMBERS}\r\n',
        f"\ufeff{HEAD}\nn000001/0001_01,{NUMBERS}\n\n",
        f"n000001/0001_01.jpg,{NUMBERS}\n",
        f"{HEAD}\n n000001/0001_01 , 1.5 ,2,3,4,5,6,7,8,9,10.25\n",
    ],
    ids=[
        "quoted",
        "plain",
        "extension",
        "lower-case header",
        "split and CRLF",
        "BOM and blank line",
        "no header",
        "spaces",
    ],
)
def test_variants_give_the_same_table(tmp_path, text):
    table = read(tmp_path, text)
    assert table.keys.to_pylist() == ["n000001/0001_01"]
    assert table.points.dtype == np.float32
    assert table.points.tolist() == [POINTS]
    assert table.problems == {}


def test_several_files_are_concatenated(tmp_path):
    paths = []
    for name in ("train", "test"):
        paths.append(tmp_path / f"{name}.csv")
        paths[-1].write_text(f"{HEAD}\n{name}1/a,{NUMBERS}\n{name}2/b,{NUMBERS}\n")
    table = read_landmarks(paths)
    assert table.keys.to_pylist() == ["train1/a", "train2/b", "test1/a", "test2/b"]
    assert [table.landmarks(row).place for row in range(4)] == [
        "train.csv row 1",
        "train.csv row 2",
        "test.csv row 1",
        "test.csv row 2",
    ]


def test_an_identity_may_be_called_test(tmp_path):
    assert read(tmp_path, f"{HEAD}\ntest/0001,{NUMBERS}\n").keys.to_pylist() == ["test/0001"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "P2X is missing"),
        ("nan", "P2X is 'nan', not a finite number"),
        ("inf", "P2X is 'inf', not a finite number"),
        ("abc", "P2X is 'abc', not a finite number"),
        ("1e999", "P2X is '1e999', not a finite number"),
        ("1e39", "P2X is '1e39', not a finite number"),
    ],
)
def test_a_bad_number_is_a_row_with_a_reason(tmp_path, value, reason):
    table = read(tmp_path, f"{HEAD}\nn1/a,{NUMBERS}\nn1/b,1,2,{value},4,5,6,7,8,9,10\nn1/c,{NUMBERS}\n")
    assert table.problems == {1: reason}
    assert table.points[[0, 2]].tolist() == [POINTS, POINTS]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("NAME_ID,X,Y,W,H\nn1/a,1,2,3,4\n", "line 1: found 'NAME_ID,X,Y,W,H', expected the header NAME_ID,P1X"),
        (f"{HEAD}\nn1/a,{NUMBERS}\nn1/b,1,2,3\n", f"line 3: 4 fields, expected 11 ({HEAD})"),
        (f"{HEAD}\nn1/a,{NUMBERS}\n\nn1/b,{NUMBERS},7\n", "line 4: 12 fields, expected 11"),
        ("", "line 1: found 'an empty line', expected the header"),
        (HEAD.encode() + b"\nn1/\xff\xfe," + NUMBERS.encode() + b"\n", "line 2: not UTF-8 text"),
        (f"{HEAD}\nn1/\u00a0a,{NUMBERS}\nn1/b,1\n", "line 3: 2 fields, expected 11"),
        (f'{HEAD}\nn1/a,{NUMBERS}\n"n1/b,{NUMBERS}\nn1/c,{NUMBERS}\n', "line 3: 1 field, expected 11"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "line 1: not UTF-8 text"),
    ],
    ids=[
        "bounding boxes",
        "short row",
        "long row after a blank line",
        "empty",
        "not UTF-8",
        "NBSP",
        "open quote",
        "an image",
    ],
)
def test_a_malformed_file_is_reported_with_its_line(tmp_path, text, line):
    with pytest.raises(LandmarkError) as error:
        read(tmp_path, text)
    assert str(error.value).startswith(f"{tmp_path / 'landmarks.csv'}: {line}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("header", ["", f";{';'.join(['name', *HEADER[1:]])}\n"])
def test_a_column_of_row_numbers_is_named(tmp_path, header):
    with pytest.raises(LandmarkError, match=r"line 1: 12 fields, expected 11 .*leave out the column of row numbers"):
        read(tmp_path, f"{header}7;n1/1;{NUMBERS.replace(',', ';')}\n")


def test_a_path_behind_the_numbers_is_reported(tmp_path):
    with pytest.raises(LandmarkError, match="line 1: the path is the last field, expected the first"):
        read(tmp_path, f"{NUMBERS},n1/a.jpg\n")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize(
    "columns",
    [
        ["", *HEADER],
        [*HEADER[1:], "NAME_ID"],
        [*HEADER[:5], "score", *HEADER[5:], "note"],
        ["name_id", *HEADER[1::2], *HEADER[2::2]],
        ["NAME_ID", *(f"P{point}{axis}" for point in range(1, 6) for axis in "YX")],
    ],
    ids=["row numbers", "path last", "more columns", "all x, then all y", "y before x"],
)
def test_a_header_that_names_all_columns_says_where_they_are(tmp_path, columns, separator):
    values = dict(zip(HEADER, ["n1/a.jpg", *NUMBERS.split(",")], strict=True))
    row = separator.join(values.get(name.upper(), "0.5") for name in columns)
    table = read(tmp_path, f"{separator.join(columns)}\n{row}\n\n# n1/c\n{row}\n")
    assert table.keys.to_pylist() == ["n1/a", "n1/a"]
    assert table.points.tolist() == [POINTS, POINTS]
    with pytest.raises(LandmarkError, match=rf"line 3: 2 fields, expected {len(columns)}"):
        read(tmp_path, f"{separator.join(columns)}\n{row}\nn1/b{separator}1\n")


def test_columns_in_another_order_that_blanks_separate_are_refused(tmp_path):
    header = " ".join(["NAME_ID", *HEADER[1::2], *HEADER[2::2]])
    with pytest.raises(
        LandmarkError, match="line 1: columns in an order of their own; separate them by tabs or commas"
    ):
        read(tmp_path, f"{header}\nn1/a {NUMBERS.replace(',', ' ')}\n")


def test_an_absent_or_empty_file_is_reported(tmp_path):
    with pytest.raises(LandmarkError, match=r"none\.csv: No such file or directory; expected a landmark CSV"):
        read_landmarks([tmp_path / "none.csv"])
    for header in (f"{HEAD}\n", HEAD):
        with pytest.raises(LandmarkError, match=r"landmarks\.csv: no landmark rows"):
            read(tmp_path, header)


def test_a_large_file_is_read_in_blocks(tmp_path):
    rows = 120_000
    text = f"{HEAD}\n" + "".join(f"n{row // 300:06d}/{row % 300:04d}_01,{NUMBERS}\n" for row in range(rows))
    assert len(text) > 4 << 20
    table = read(tmp_path, text)
    assert len(table.keys) == rows
    assert table.keys[rows - 1].as_py() == f"n{(rows - 1) // 300:06d}/{(rows - 1) % 300:04d}_01"


@pytest.mark.filterwarnings("error")
def test_numbers_beyond_float32_are_infinite_without_a_warning(tmp_path):
    csv = write(tmp_path / "a.csv", ["x.jpg" + ",1e300" * 10, "y.jpg" + ",oops" * 10])
    text = write(tmp_path / "b.txt", ["p" + " 1e300" * 8, "q" + " 1e300" * 8])
    pq.write_table(pa.table({"key": ["r"], "landmarks": [[1e300] * 10]}), tmp_path / "c.parquet")
    table = read_landmarks([csv, text, tmp_path / "c.parquet"], four_points=True)
    assert table.points[[0, 2, 3, 4], 0].tolist() == [float("inf")] * 4
    assert sorted(table.problems) == [0, 1, 2, 3, 4]
