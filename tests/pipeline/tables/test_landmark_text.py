"""Landmark tables as text: separators, comments, encodings, names; changed tables."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline.tables.landmark_reader import read_landmarks
from pipeline.tables.landmark_table import HEADER, LandmarkError
from pipeline.tables.text_numbers import text_numbers
from tests.pipeline.tables.landmark_tables import FOUR, HEAD, NUMBERS, POINTS, read, write

SEPARATORS = {
    "commas": ",",
    "commas and blanks": ", ",
    "tabs": "\t",
    "semicolons": ";",
    "blanks": " ",
    "several blanks": "    ",
    "blanks and tabs": " \t",
}


def test_a_huge_file_that_is_no_table_is_refused_by_its_start(tmp_path, monkeypatch):
    with open(tmp_path / "a.csv", "wb") as stream:
        stream.truncate(1 << 40)  # zeros, which take no disk
    monkeypatch.setattr("pipeline.tables.landmark_reader.scan", lambda stream: pytest.fail("the file is read"))
    with pytest.raises(LandmarkError, match=r"a\.csv: line 1: not UTF-8 text"):
        read_landmarks(tmp_path / "a.csv")


@pytest.mark.parametrize("separator", [",", " ", ";"])
def test_lines_of_blanks_are_empty_lines(tmp_path, separator):
    rows = [separator.join([name, *NUMBERS.split(",")]) for name in ("n1/a", "n1/b")]
    assert read(tmp_path, f"{rows[0]}\n  \n{rows[1]}\n\n \t\n").keys.to_pylist() == ["n1/a", "n1/b"]


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
        (
            "n1/a.jpg " + " ".join(f"{value:.2f}".replace(".", ",") for value in POINTS),
            "n1/a",
        ),  # as many commas as in a CSV
        ("n1/a.jpg," + ",".join(f'"{value:.2f}"'.replace(".", ",") for value in POINTS), "n1/a"),
        (f"[1]/a.jpg [{NUMBERS.replace(',', ', ')}]", "[1]/a"),
        (f"n1/a.jpg\t[[{NUMBERS.replace(',', ' ')}]]", "n1/a"),
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
    monkeypatch.setattr("pipeline.tables.streams._BLOCK_BYTES", 37)  # within characters
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
        (b"\xff\xfea\x00\x00", "begins as UTF-16 text, but is not; save it as UTF-8"),
        (f"{HEAD}\nn1/\u00e9,{NUMBERS}\n".encode("latin-1"), "line 2: not UTF-8 text; save it as UTF-8"),
    ],
)
def test_what_is_no_text_is_named_with_the_remedy(tmp_path, data, reason):
    with pytest.raises(LandmarkError) as error:
        read(tmp_path, data)
    assert str(error.value).startswith(f"{tmp_path / 'landmarks.csv'}: {reason}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "line", ['{"path": "n1/a.jpg", "landmarks": [1.5, 2, 3, 4, 5, 6, 7, 8, 9, 10]}', '[{"path": "n1/a.jpg"}]']
)
def test_json_is_no_table(tmp_path, line):
    with pytest.raises(LandmarkError, match=r"line 1: found .*, expected the header NAME_ID"):
        read(tmp_path, f"{line}\n{line}\n")


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
        monkeypatch.setattr("pipeline.tables.text_lines.BLOCK_BYTES", 100)
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


def test_a_column_with_decimal_commas_is_cast_once(monkeypatch):
    """A cast that fails takes several times as long."""

    def cast_(*given):
        casts.append(given)
        return cast(*given)

    cast, casts = pc.cast, []
    monkeypatch.setattr(pc, "cast", cast_)
    assert text_numbers(pa.array(["1,5", "2", "3.25"])).tolist() == [1.5, 2, 3.25]
    assert len(casts) == 1


@pytest.mark.parametrize("header", [[], [HEAD], [HEAD.replace("NAME_ID", "image_id").replace("P", "x")]])
@pytest.mark.parametrize("separator", [",", "\t", " "])
@pytest.mark.parametrize("word", ["None", "NA", "#N/A", "1.2.3"])
def test_first_rows_without_numbers_are_no_header(tmp_path, word, separator, header):
    """They were left out without a line: up to three images, in which no face was found."""
    rows = [",".join(["n1/a.jpg", *[word] * 10]), ",".join(["n1/b", *[word] * 10]), f"n1/c.jpg,{NUMBERS}"]
    table = read(tmp_path, "\n".join([*header, *rows]).replace(",", separator))
    assert table.keys.to_pylist() == ["n1/a", "n1/b", "n1/c"]
    assert dict(table.problems) == dict.fromkeys((0, 1), f"P1X is {word!r}, not a finite number")
    with pytest.raises(
        LandmarkError, match=f"line {len(header) + 1}: found 'no line with numbers', expected the header"
    ):
        read(tmp_path, "\n".join([*header, *rows[:2]]).replace(",", separator))


def test_the_table_of_landmarks_may_be_saved_as_csv(tmp_path):
    """As pandas writes it."""
    table = read(tmp_path, f"path,{','.join(HEADER[1:])},score,status\nn1/a.jpg,{NUMBERS},0.9,ok\n")
    assert (table.keys.to_pylist(), table.points.tolist()) == (["n1/a"], [POINTS])
