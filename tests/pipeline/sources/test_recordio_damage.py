"""RecordIO files whose labels, index or bytes are wrong."""

from __future__ import annotations

import contextlib
import errno
import os
import struct

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.build import build, options_for
from pipeline.images.decode import ImageError
from pipeline.sources import recordio_file
from pipeline.sources.recordio import RecordReader
from pipeline.sources.source import SourceError
from shards.errors import LrfrError
from tests.pipeline.sources.records import expected, rows_of
from tests.shard_sets import flip_bit
from tools.made_recordio import MAGIC, insightface_payloads, packed, write_records

HEADERS = {  # the labels of record 0
    "nan": (float("nan"), 13),
    "infinite": (10, float("inf")),
    "billions": (10, 4e9),
    "inexact": (2.0**24 + 2, 2.0**24 + 5),
    "half": (10.5, 13),
    "negative": (-10, 13),
    "reversed": (13, 10),
    "too far": (11, 14),
    "none": (10, 10),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_damaged_header_record_leaves_the_labels(people, tmp_path, kind):
    payloads = insightface_payloads(people)
    payloads[0] = packed(HEADERS[kind], 0)
    assert rows_of(write_records(tmp_path, payloads)) == expected(people)


@pytest.mark.parametrize("labels", [(1, 4e9), (float("nan"), 3), (4, 2), (1, 9), (0, 3), (3, 1.5)])
def test_a_damaged_identity_record_leaves_the_labels(people, tmp_path, labels):
    payloads = insightface_payloads(people)
    payloads[-3] = packed(labels, 0)
    assert rows_of(write_records(tmp_path, payloads)) == expected(people)


def test_records_that_no_identity_has_or_that_are_not_indexed_are_rows_with_a_reason(people, tmp_path):
    payloads = insightface_payloads(people)
    payloads[-3] = packed((1, 2), 0)
    path = write_records(tmp_path, payloads)
    lines = (tmp_path / "train.idx").read_text().splitlines()
    (tmp_path / "train.idx").write_text("\r\n".join(line for line in lines if not line.startswith("5\t")))
    found = expected(people)
    found[1] = ("unknown/00000002", "no identity record has it in its range")
    found[4] = ("000001/00000005", "the index has no such record")
    assert rows_of(path) == found


@pytest.mark.parametrize("offset", ["-4", "99999999999", "9223372036854775807", "2"])
@pytest.mark.parametrize("headers", [True, False])
def test_an_index_that_points_elsewhere_gives_rows_with_a_reason(people, tmp_path, offset, headers):
    payloads = insightface_payloads(people)
    path = write_records(tmp_path, payloads if headers else payloads[1:-3])
    lines = (tmp_path / "train.idx").read_text().splitlines()
    lines[3] = f"3\t{offset}"
    (tmp_path / "train.idx").write_text("\n".join(lines) + "\n")
    found = rows_of(path)
    assert len(found) == 9
    (bad,) = (one for one in found if isinstance(one[1], str))
    place = "no record at byte 2 of train.rec" if offset == "2" else "it lies outside train.rec, or is cut at its end"
    assert bad == ("000001/00000003" if headers else "unknown/00000003", place)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0\t0\n1\tx\n", "CSV conversion error to int64: invalid value 'x'"),
        ("0\t0\n1\n", "Expected 2 columns, got 1"),
        ("", "Empty CSV file"),
        ("0\t99999999999999999999\n", "conversion error"),
        ("0\t\n", "conversion error"),
        ("\0\xff\n", ""),
    ],
)
def test_an_invalid_index_is_a_one_line_error(people, tmp_path, text, reason):
    path = write_records(tmp_path, insightface_payloads(people))
    (tmp_path / "train.idx").write_text(text, encoding="latin-1")
    with pytest.raises(SourceError, match=r"train\.idx: no index of records \(") as error:
        rows_of(path)
    assert reason in str(error.value)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("label", [float("nan"), float("inf"), -1.0, 0.5, 3e9])
def test_a_label_that_is_no_class_number_is_a_row_with_a_reason(people, tmp_path, label):
    payloads = [packed(1, 0, people[0][0]), packed(label, 1, people[0][1])]
    found = rows_of(write_records(tmp_path, payloads))
    assert found == [
        ("000001/00000000", people[0][0]),
        ("unknown/00000001", f"its label {np.float32(label)} is not a class number".replace("3e+09", "3000000000.0")),
    ]


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("lost", [8, 100, 700])
def test_a_file_that_is_cut_keeps_what_is_whole(people, tmp_path, index, lost, capsys):
    path = write_records(tmp_path, insightface_payloads(people)[:-3], index=index)
    data = path.read_bytes()
    path.write_bytes(data[:-lost])
    found = rows_of(path)
    assert found[:-1] == expected(people)[:-1]
    assert "cut" in found[-1][1]
    assert (
        "train.rec: its first record states 13 records, and the last one found is number 9: the file or its index is"
        in (capsys.readouterr().err)
    )


def test_damage_in_the_middle_needs_the_index(people, tmp_path):
    path = write_records(tmp_path, insightface_payloads(people))
    offset = int((tmp_path / "train.idx").read_text().splitlines()[4].split()[1])
    flip_bit(path, offset)
    found = rows_of(path)
    assert found[3] == ("000001/00000004", f"no record at byte {offset:,} of train.rec")
    assert found[:3] + found[4:] == expected(people)[:3] + expected(people)[4:]
    (tmp_path / "train.idx").unlink()
    with pytest.raises(SourceError, match=rf"train\.rec: damaged at byte {offset:,} of [\d,]+, after 4 records; later"):
        rows_of(path)


def hostile(kind, length, content=b""):
    return MAGIC + struct.pack("<I", kind << 29 | length) + content


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (hostile(0, (1 << 29) - 1), "the record has 536,870,911 bytes; at most 1,048,576 are read (--max-pixels)"),
        (hostile(0, 1 << 19), "the record at byte 0 of train.rec is cut, at the end of the file"),
        (hostile(2, 4, b"abcd"), "no record at byte 0 of train.rec"),
        (hostile(1, 4, b"abcd") * 2, "no record at byte 12 of train.rec, where one goes on"),
        (hostile(1, 4, b"abcd"), "no record at byte 12 of train.rec, where one goes on"),
        (hostile(1, 0) + hostile(2, 0) * 5000, "the record at byte 0 of train.rec has more than 1024 parts"),
        (hostile(0, 20, bytes(20)), "the record has 20 bytes, too few for its header and labels"),
        (hostile(0, 24, b"\xff" * 24), "the record has 24 bytes, too few for its header and labels"),
        (b"", "no record at byte 0 of train.rec"),
    ],
)
def test_a_hostile_record_is_a_reason(tmp_path, record, reason):
    (tmp_path / "train.rec").write_bytes(record)
    with contextlib.closing(RecordReader(tmp_path / "train.rec")) as reader, pytest.raises(ImageError) as error:
        reader.read(bytes(8), 1 << 20)
    assert str(error.value) == reason


@pytest.mark.parametrize(("count", "seed"), [(150, 0), pytest.param(20_000, 1, marks=pytest.mark.heavy)])
def test_damage_anywhere_gives_one_line_or_rows(tmp_path, count, seed):
    rng = np.random.default_rng(seed)
    payloads = insightface_payloads([[b"image 1", b"image 2" + MAGIC], [b"image 3"]])
    path = write_records(tmp_path, payloads)
    good = {name: (tmp_path / name).read_bytes() for name in ("train.rec", "train.idx")}
    read = refused = 0
    for _ in range(count):
        for name, content in good.items():
            data = bytearray(content)
            for position in rng.integers(0, len(data), rng.integers(3)).tolist():
                data[position] = rng.choice([data[position] ^ 1 << int(rng.integers(8)), *b"\0\xff\t0959"])
            (tmp_path / name).write_bytes(data[: int(rng.integers(len(data)))] if rng.random() < 0.1 else data)
        if rng.random() < 0.3:
            (tmp_path / "train.idx").unlink()
        try:
            read += len(rows_of(path)) > 0
        except LrfrError:
            refused += 1
    assert read > count / 2
    assert refused > count / 20


def test_a_disk_that_fails_names_the_file(tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    (tmp_path / "train.rec").write_bytes(bytes(64))
    file = recordio_file.RecordFile(tmp_path / "train.rec")
    monkeypatch.setattr(os, "pread", fails)
    with pytest.raises(OSError, match="Input/output error") as error:
        file.payload(0)
    assert error.value.filename == str(tmp_path / "train.rec")
    file.close()


def test_a_vanished_file_ends_the_build(people, tmp_path, monkeypatch):
    path = write_records(tmp_path / "ms1m", insightface_payloads(people))
    read, calls = RecordReader.read, []

    def reading(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            path.rename(tmp_path / "gone.rec")
            arguments[0].close()
        return read(*arguments)

    monkeypatch.setattr(RecordReader, "read", reading)
    options = options_for("recordio", root=path, out=tmp_path / "out", aligned="arcface", executor="serial")
    with pytest.raises(SourceError, match=r"train\.rec: no longer there"):
        build(options)
    monkeypatch.undo()
    (tmp_path / "gone.rec").rename(path)
    assert build(options).statuses == {"ok": 9}


def test_rows_of_the_shards_have_the_reasons(people, tmp_path):
    path = write_records(tmp_path, [packed(0, 0, people[0][0]), packed(-1, 1, people[0][1]), packed(0, 2, b"")])
    build(options_for("recordio", root=path, out=tmp_path / "out", aligned="arcface", executor="serial"))
    rows = pq.read_table(tmp_path / "out" / "shard-000000.parquet").to_pylist()
    assert {row["key"]: (row["status"], row["error_message"]) for row in rows} == {
        "000000/00000000": ("ok", None),
        "unknown/00000001": ("bad-record", "its label -1.0 is not a class number"),
        "000000/00000002": ("unreadable-image", "empty file"),
    }
