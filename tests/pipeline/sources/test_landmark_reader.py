"""The reader of landmark tables: all variants give the same table; malformed files are reported by file and line."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import random
import socket
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.sources.landmark_reader import read_landmarks
from pipeline.sources.landmarks import HEADER, LandmarkError

HEAD = ",".join(HEADER)
NUMBERS = "1.5,2,3,4,5,6,7,8,9,10.25"
POINTS = [1.5, 2, 3, 4, 5, 6, 7, 8, 9, 10.25]


def read(tmp_path, text, name="landmarks.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_landmarks([path])


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
        (f'{HEAD}\nn1/a,{NUMBERS}\n"n1/b,{NUMBERS}\nn1/c,{NUMBERS}\n', "line 3: 1 fields, expected 11"),
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


@pytest.mark.parametrize("text", [f",{HEAD}\n0,n1/1,{NUMBERS}\n", f"7;n1/1;{NUMBERS.replace(',', ';')}\n"])
def test_a_column_of_row_numbers_is_named(tmp_path, text):
    with pytest.raises(LandmarkError, match=r"line 1: 12 fields, expected 11 .*leave out the column of row numbers"):
        read(tmp_path, text)


@pytest.mark.parametrize("header", ["", "P1X,P1Y,P2X,P2Y,P3X,P3Y,P4X,P4Y,P5X,P5Y,NAME_ID\n"])
def test_a_path_behind_the_numbers_is_reported(tmp_path, header):
    line = 2 if header else 1
    with pytest.raises(LandmarkError, match=f"line {line}: the path is the last field, expected the first"):
        read(tmp_path, f"{header}{NUMBERS},n1/a.jpg\n")


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


FIVE = [
    f"a/{name}.jpg," + ",".join(str(10 * number + value) for value in range(10)) for number, name in enumerate("xyz")
]
FOUR = [",".join(line.split(",")[:9]) for line in FIVE]


def write(path, lines):
    path.write_text("\n".join(lines) + "\n")
    return path


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
    monkeypatch.setattr("pipeline.sources.landmark_reader.PARQUET_BLOCK_ROWS", 2)
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


def test_a_damaged_parquet_file_is_reported(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"not Parquet")
    with pytest.raises(LandmarkError, match=r"a\.parquet: not a table with columns key and landmarks"):
        read_landmarks([tmp_path / "a.parquet"])
    with pytest.raises(LandmarkError, match=r"none\.parquet: No such file or directory; expected a landmark CSV"):
        read_landmarks([tmp_path / "none.parquet"])


@pytest.mark.filterwarnings("error")
def test_numbers_beyond_float32_are_infinite_without_a_warning(tmp_path):
    csv = write(tmp_path / "a.csv", ["x.jpg" + ",1e300" * 10, "y.jpg" + ",oops" * 10])
    text = write(tmp_path / "b.txt", ["p" + " 1e300" * 8, "q" + " 1e300" * 8])
    pq.write_table(pa.table({"key": ["r"], "landmarks": [[1e300] * 10]}), tmp_path / "c.parquet")
    table = read_landmarks([csv, text, tmp_path / "c.parquet"], four_points=True)
    assert table.points[[0, 2, 3, 4], 0].tolist() == [float("inf")] * 4
    assert sorted(table.problems) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.txt"])
def test_a_pipe_without_a_writer_is_refused(tmp_path, name, monkeypatch):
    monkeypatch.setattr("pipeline.sources.streams.PIPE_WAIT_S", 0.05)
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


SEPARATORS = {
    "commas": ",",
    "commas and blanks": ", ",
    "tabs": "\t",
    "semicolons": ";",
    "blanks": " ",
    "several blanks": "    ",
    "blanks and tabs": " \t",
}


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", SEPARATORS.values(), ids=SEPARATORS)
def test_every_separator_gives_the_same_table(tmp_path, separator, end, header):
    lines = [HEADER] if header else []
    lines += [["n1/a.jpg", *NUMBERS.split(",")], ["n1/b.v2.JPG", *NUMBERS.split(",")]]
    table = read(tmp_path, end.join(separator.join(line) for line in lines) + end)
    assert table.keys.to_pylist() == ["n1/a", "n1/b.v2"]
    assert table.points.tolist() == [POINTS, POINTS]
    assert table.problems == {}


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (f"Ann O. Nym/a b.jpg {NUMBERS.replace(',', ' ')}", "Ann O. Nym/a b"),
        (f'"Ann O. Nym/a  b.jpg" {NUMBERS.replace(",", " ")}', "Ann O. Nym/a  b"),
        (f"Ann O. Nym/a.jpg\t{NUMBERS.replace(',', ' ')}", "Ann O. Nym/a"),
        (f"n1/a.jpg: {NUMBERS}".replace(":", ","), "n1/a"),
        (f"n1/a.jpg\t{NUMBERS}", "n1/a"),
        (f"Nym, Ann/a.jpg {NUMBERS.replace(',', ' ')}", "Nym, Ann/a"),
        (f"n1/a.jpg;{NUMBERS.replace(',', ';').replace('.', ',')}", "n1/a"),
        (f"n1/a.jpg {NUMBERS.replace(',', ' ').replace('.', ',')}", "n1/a"),
        (f"n1/a.jpg,{NUMBERS},", "n1/a"),
        (f"n1/a.jpg {NUMBERS.replace(',', ' ')} ", "n1/a"),
        (f'"n1/a, b.jpg",{NUMBERS}', "n1/a, b"),
        (f"n1/a.jpg: {NUMBERS.replace(',', ' ')}", "n1/a"),
        (f"n1/a b.jpg : {NUMBERS.replace(',', ' ')}", "n1/a b"),
        (f"n1/a: {NUMBERS.replace(',', ', ')}", "n1/a"),
        (f"n1/a.jpg:,{NUMBERS}", "n1/a"),
        (f"n1/a:b.jpg {NUMBERS.replace(',', ' ')}", "n1/a:b"),
        (f"#n1/a.jpg,{NUMBERS}", "#n1/a"),
        (f"#n1/a.jpg {NUMBERS.replace(',', ' ')}", "#n1/a"),
    ],
)
def test_names_with_blanks_and_mixed_separators(tmp_path, line, name):
    table = read(tmp_path, f"{line}\n{line}\n")
    assert table.keys.to_pylist() == [name, name]
    assert table.points.tolist() == [POINTS, POINTS]


COMMENTS = ["# x1, y1, ...", "#", " #\t1", f"# n1/c,{NUMBERS}", f"#{HEAD}", "#n1/c,1,2"]


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("separator", [",", "\t", ";", " "])
def test_comments_are_no_rows_and_count_as_lines(tmp_path, separator, header):
    lines = [*COMMENTS, *[HEAD] * header, *COMMENTS, f"n1/a,{NUMBERS}", *COMMENTS, f"n1/b,{NUMBERS}", *COMMENTS]
    table = read(tmp_path, "\r\n".join(lines).replace(",", separator))
    assert table.keys.to_pylist() == ["n1/a", "n1/b"]
    assert table.points.tolist() == [POINTS, POINTS]
    with pytest.raises(LandmarkError, match=f"line {len(lines) + 1}: "):
        read(tmp_path, "\n".join([*lines, "n1/c,1,2"]).replace(",", separator))


def test_comments_in_a_four_point_file_are_no_rows(tmp_path):
    path = write(tmp_path / "points.txt", ["# of 2008", *FOUR[:2], "# 1 2 3", FOUR[2], "#end"])
    assert read_landmarks([path], four_points=True).keys.to_pylist() == ["a/x", "a/y", "a/z"]


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-be", "utf-16-le", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_every_unicode_encoding_gives_the_same_table(tmp_path, codec, mark, monkeypatch):
    monkeypatch.setattr("pipeline.sources.streams._BLOCK_BYTES", 37)  # within characters
    text = f"{HEAD}\r\nn1/Ren\u00e9e \U0001f600.jpg,{NUMBERS}\r\n"
    mark = "" if codec in ("utf-16", "utf-32", "utf-8-sig") else mark
    table = read(tmp_path, (mark + text).encode(codec))
    assert table.keys.to_pylist() == ["n1/Ren\u00e9e \U0001f600"]
    assert table.points.tolist() == [POINTS]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (gzip.compress(HEAD.encode(), mtime=0), "packed by gzip; unpack it first"),
        (bz2.compress(HEAD.encode()), "packed by bzip2; unpack it first"),
        (lzma.compress(HEAD.encode()), "packed by xz; unpack it first"),
        (b"PK\x03\x04\x14\x00", "a ZIP archive or an Excel workbook; unpack it, or save it as CSV first"),
        (b"\xff\xfea\x00\x00", "begins as UTF-16 text, but is none; save it as UTF-8"),
        (f"{HEAD}\nn1/\u00e9,{NUMBERS}\n".encode("latin-1"), "line 2: not UTF-8 text; save it as UTF-8"),
    ],
)
def test_what_is_no_text_is_named_with_the_remedy(tmp_path, data, reason):
    with pytest.raises(LandmarkError) as error:
        read(tmp_path, data)
    assert str(error.value).startswith(f"{tmp_path / 'landmarks.csv'}: {reason}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["", '""', " ", ":"])
def test_an_empty_name_is_a_row_with_a_reason(tmp_path, name):
    table = read(tmp_path, f"{HEAD}\nn1/a,{NUMBERS}\n{name},{NUMBERS}\n")
    assert table.keys.to_pylist() == ["n1/a", ""]
    assert table.problems == {1: "the name is empty"}


@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_an_empty_field_is_a_missing_number_whatever_separates(tmp_path, separator):
    lines = [f"n1/a,{NUMBERS}", "n1/b,1,2,,4,5,6,7,8,9,10", ",".join(["n1/c", *[""] * 10])]
    table = read(tmp_path, "\n".join(lines).replace(",", separator))
    assert table.problems == {1: "P2X is missing", 2: "P1X is missing"}


def test_the_count_and_header_of_celeba_are_no_rows(tmp_path):
    head = "2\n" + " ".join(HEADER[1:]) + " \n"
    rows = "000001.jpg    69  109  106  113   77  142   73  152  108  154\n"
    table = read(tmp_path, head + rows.replace("1.jpg", "0.jpg", 1) + rows)
    assert table.keys.to_pylist() == ["000000", "000001"]
    assert table.points[1].tolist() == [69, 109, 106, 113, 77, 142, 73, 152, 108, 154]


@pytest.mark.parametrize("separator", [" ", "\t"])
@pytest.mark.parametrize(
    ("bad", "reason"),
    [("n1/c 1 2 3", ""), ("n1/c 9 1 2 3 4 5 6 7 8 9 10", ""), ("n1/\udcff 1 2 3 4 5 6 7 8 9 10", "not UTF-8")],
)
def test_a_malformed_line_of_any_kind_is_reported(tmp_path, separator, bad, reason):
    text = "\n".join([" ".join(HEADER), "n1/a 1 2 3 4 5 6 7 8 9 10", "", bad, "n1/d 1 2 3 4 5 6 7 8 9 10"])
    with pytest.raises(LandmarkError, match=rf"landmarks\.csv: line 4: .*{reason}"):
        read(tmp_path, text.replace(" ", separator).encode("utf-8", "surrogateescape"))


def test_a_header_in_other_words_is_no_row(tmp_path):
    names = ",".join(["file", *(f"{part}_{axis}" for part in ("le", "re", "n", "lm", "rm") for axis in "xy")])
    table = read(tmp_path, f"{names}\nn1/a,{NUMBERS}\n")
    assert table.keys.to_pylist() == ["n1/a"]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("./n1/a.jpg", "n1/a"),
        (".//n1//a.jpg", "n1/a"),
        ("/n1/./a.TIF", "n1/a"),
        ("n1\\a.jpg", "n1/a"),
        ("train\\n1\\a.jfif", "n1/a"),
        (".\\n1\\a.ppm", "n1/a"),
        ("C:\\faces\\n1\\a.jpg", "C:/faces/n1/a"),
        ("/faces/train/n1/a.jpe", "faces/train/n1/a"),
        ("../faces/n1/a.jpg", "../faces/n1/a"),
        ("n1/.a.jpg", "n1/.a"),
    ],
)
def test_names_become_keys(tmp_path, name, key):
    assert read(tmp_path, f"{name},{NUMBERS}\n").keys.to_pylist() == [key]


def test_blocks_do_not_change_the_table(tmp_path, monkeypatch):
    rows = 700
    lines = [f"n{row // 30}/{row}.jpg,{row},2,3,4,5,6,7,8,9,{row % 7 or ''}" for row in range(rows)]
    for separator in (",", " "):
        text = "\r\n".join([HEAD, "", *lines]).replace(",", separator)
        text = text if separator == "," else text.replace(" \r", " 0\r")
        whole = read(tmp_path, text)
        monkeypatch.setattr("pipeline.sources.landmark_text.BLOCK_BYTES", 100)
        parts = read(tmp_path, text)
        monkeypatch.undo()
        assert len(whole.keys) == rows
        assert parts.keys.equals(whole.keys)
        assert parts.problems == whole.problems
        assert np.array_equal(parts.points, whole.points, equal_nan=True)


def mutated(rng):
    """A table of any kind with a few random changes."""
    separator = rng.choice([",", "\t", ";", " ", ", "])
    rows = [separator.join(HEADER)] if rng.random() < 0.5 else []
    for row in range(rng.randrange(6)):
        count = rng.choice([10, 10, 10, 8])
        rows.append(separator.join([f"n{row}/x.jpg", *(f"{rng.uniform(0, 200):.2f}" for _ in range(count))]))
    data = rng.choice(["\n", "\r\n", "\r"]).join(rows).encode()
    for _ in range(rng.randrange(5)):
        at = rng.randrange(len(data) + 1)
        piece = rng.choice(
            [
                b"\n",
                b"\r",
                b"\n#",
                b":",
                b'"',
                b",",
                b" ",
                b"\xff",
                b"\0",
                b"nan",
                b"\xef\xbb\xbf",
                b"PAR1",
                data[:at][-9:],
            ]
        )
        data = data[:at] + (piece if rng.random() < 0.7 else b"") + data[at + rng.choice([0, 0, 1, 9]) :]
    return data


def check_mutated(path, seed, count):
    outcomes = {True: 0, False: 0}
    rng = random.Random(seed)
    for _ in range(count):
        path.write_bytes(mutated(rng))
        try:
            table = read_landmarks([path], four_points=rng.random() < 0.3)
        except LandmarkError as error:
            refused = str(error)
        else:
            refused = ""
            assert len(table.keys) == len(table.points) == table.files[0].rows
            finite = np.isfinite(table.points[:, : table.files[0].numbers]).all(1)
            nameless = {row for row, key in enumerate(table.keys.to_pylist()) if not key}
            assert set(table.problems) == set(np.flatnonzero(~finite).tolist()) | nameless
        assert not refused or (refused.startswith(f"{path}: ") and "\n" not in refused)
        outcomes[not refused] += 1
    assert min(outcomes.values()) > count / 20


def test_a_changed_table_is_read_or_refused_in_one_line(tmp_path):
    check_mutated(tmp_path / "a.csv", 0, 150)


@pytest.mark.heavy
@pytest.mark.parametrize("seed", range(1, 5))
def test_thousands_of_changed_tables_are_read_or_refused_in_one_line(tmp_path, seed):
    check_mutated(tmp_path / "a.csv", seed, 2000)
