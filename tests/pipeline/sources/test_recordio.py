"""RecordIO files: listed by ranges, by labels or without an index, and whatever is wrong with them."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import signal
import struct

import cv2
import hypothesis
import hypothesis.strategies as st
import numpy as np
import pyarrow.parquet as pq
import pytest
from nvidia.dali import fn, pipeline_def

from pipeline.build import build, options_for
from pipeline.images.decode import ImageError
from pipeline.sources import recordio_file
from pipeline.sources.recordio import RecordIO, RecordReader
from pipeline.sources.source import SourceError
from shards.errors import LrfrError
from shards.index import ShardIndex, ShardReader
from shards.schema import Manifest
from shards.verify import verify
from tests.conftest import error_of, flip_bit
from tools.made_recordio import MAGIC, insightface_payloads, packed, write_record, write_records

SIDE = 112


@pytest.fixture(scope="module")
def people(painted):
    """The JPEGs of some people, 112 px."""
    return [
        [
            cv2.imencode(".jpg", cv2.resize(image, (SIDE, SIDE))[..., ::-1])[1].tobytes()
            for image, _ in shots[: 2 + number]
        ]
        for number, shots in enumerate(list(painted.values())[:3])
    ]


def rows_of(path):
    """(key, image or the reason why there is none) of each row."""
    rows = RecordIO().rows(path, (), aligning=False)
    found = []
    with contextlib.closing(rows.reader) as reader:
        for row, (key, place) in enumerate(zip(rows.keys.to_pylist(), rows.places.to_pylist(), strict=True)):
            try:
                found.append((key, rows.problems[row][1] if row in rows.problems else reader.read(place, 1 << 20)))
            except ImageError as error:
                found.append((key, str(error)))
    return found


def expected(people):
    numbers = iter(range(1, 1000))
    return [(f"{person:06d}/{next(numbers):08d}", image) for person, images in enumerate(people) for image in images]


@pytest.mark.parametrize("index", [True, False])
def test_identities_are_the_ranges_of_their_records(people, tmp_path, index, capsys):
    path = write_records(tmp_path, insightface_payloads(people), index=index)
    (tmp_path / "property").write_text("3,112,112")
    assert rows_of(path) == expected(people)
    without = f"{path.name}: without train.idx its records are found by reading it to its end\n"
    assert capsys.readouterr().err == ("" if index else without)
    (tmp_path / "property").write_text("4,112,112")
    rows_of(path)
    assert "property: states 4 identities, and the records have 3\n" in capsys.readouterr().err


def test_a_property_file_that_is_a_pipe_is_not_waited_for(people, tmp_path):
    path = write_records(tmp_path, insightface_payloads(people))
    os.mkfifo(tmp_path / "property")
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("waits for the pipe"))
    signal.alarm(10)
    try:
        assert len(rows_of(path)) == 9
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("several", [False, True])
def test_identities_are_labels_where_there_are_no_ranges(people, tmp_path, index, several):
    images = [(person, image) for person, images in enumerate(people) for image in images]
    payloads = [packed([person, 0.5, 7] if several else person, 0, image) for person, image in images]
    path = write_records(tmp_path, payloads, index=index)
    assert rows_of(path) == [(f"{person:06d}/{row:08d}", image) for row, (person, image) in enumerate(images)]


def test_the_build_stores_the_images_as_they_are(people, tmp_path, run):
    write_records(tmp_path / "ms1m", insightface_payloads(people))
    command = ["build-shards", "--source", "recordio", "--root", tmp_path / "ms1m", "--out", tmp_path / "out"]
    assert error_of(run(*command)).startswith(
        "Error: --source recordio: say which template its crops follow: --aligned"
    )
    done = run(*command, "--template", "arcface")
    assert error_of(done).startswith("Error: --source recordio: say which template its crops follow: --aligned arcface")
    done = run(*command, "--aligned", "arcface", "--executor", "serial")
    assert done.returncode == 0, done.stderr
    assert "9 rows of train.rec: 9 images of 3 identities to store" in done.stderr
    manifest, index = Manifest.read(tmp_path / "out"), ShardIndex(tmp_path / "out")
    assert (manifest.source, manifest.identities, manifest.statuses) == ("recordio", 3, {"ok": 9})
    assert (manifest.preprocessing["template"], manifest.preprocessing["size"]) == ("arcface", SIDE)
    with ShardReader(index) as reader:
        stored = [(index.key(row), reader.image(row)) for row in range(len(index))]
    assert stored == expected(people)
    assert index.label.tolist() == [0] * 2 + [1] * 3 + [2] * 4
    assert list(verify(tmp_path / "out", full=True)) == []
    lines = (tmp_path / "ms1m" / "train.idx").read_text().splitlines()
    lines[3], lines[4] = lines[4].replace("4\t", "3\t"), lines[3].replace("3\t", "4\t")
    (tmp_path / "ms1m" / "train.idx").write_text("\n".join(lines))
    done = run(*command, "--aligned", "arcface")
    assert "contains a build with different records of train.rec;" in error_of(done)


@pipeline_def(batch_size=1, num_threads=1, device_id=None)
def mxnet_pipeline(path, index):
    jpegs, labels = fn.readers.mxnet(path=[path], index_path=[index])
    return jpegs, labels


def test_dali_reads_the_same_images_and_labels(people, tmp_path):
    images = [(person, image + MAGIC * 3 + b"x") for person, images in enumerate(people) for image in images]
    path = write_records(tmp_path, [packed(person, 0, image) for person, image in images])
    pipeline = mxnet_pipeline(str(path), str(tmp_path / "train.idx"))
    pipeline.build()
    read = []
    for _ in images:
        jpegs, labels = pipeline.run()
        read.append((int(labels.as_array()[0, 0]), np.asarray(jpegs[0]).tobytes()))
    ours = [(int(key[:6]), image) for key, image in rows_of(path)]
    assert sorted(read) == sorted(ours) == sorted(images)


@hypothesis.given(st.lists(st.sampled_from([MAGIC, b"abcd", b"\x0a", b""]), max_size=8))
def test_a_payload_may_contain_the_magic_anywhere(tmp_path_factory, words):
    path = tmp_path_factory.getbasetemp() / "magic.rec"
    payload = packed(5, 0, b"".join(words))
    with open(path, "wb") as stream:
        offsets = [write_record(stream, payload), write_record(stream, packed(6, 0, b"next"))]
    with contextlib.closing(RecordReader(path)) as reader:
        read = [reader.read(offset.to_bytes(8, "little")) for offset in offsets]
        with contextlib.closing(pickle.loads(pickle.dumps(reader))) as copy:  # as it is sent to a worker
            assert copy.read(offsets[1].to_bytes(8, "little")) == b"next"
    assert read == [b"".join(words), b"next"]
    with contextlib.closing(recordio_file.RecordFile(path)) as file:
        assert file.walk()[0].tolist() == offsets


def test_a_magic_in_the_header_of_an_image(people, tmp_path):
    ids = struct.unpack("<Q", MAGIC * 2)[0]
    payloads = [packed(3, ids, people[0][0]), struct.pack("<I", 4) + MAGIC + bytes(16) + struct.pack("<4f", 8, 0, 0, 0)]
    found = rows_of(write_records(tmp_path, payloads))
    assert found == [("000003/00000000", people[0][0]), ("000008/00000001", b"")]


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


def test_folders_without_a_record_file_are_reported(people, tmp_path):
    for root, message in [
        (tmp_path / "none", "not a folder; --root names the folder with train.rec and train.idx"),
        (tmp_path, "no train.rec in it"),
    ]:
        with pytest.raises(SourceError, match=message):
            options_for("recordio", root=root, out=tmp_path / "out", aligned="arcface")
    path = write_records(tmp_path, insightface_payloads(people))
    path.rename(tmp_path / "Faces.rec")
    (tmp_path / "train.idx").rename(tmp_path / "faces.IDX")
    found = options_for("recordio", root=tmp_path, out=tmp_path / "out", template="none", executor="serial")
    assert found.root == tmp_path / "Faces.rec"
    assert build(found).images == 9
    (tmp_path / "other.rec").touch()
    with pytest.raises(SourceError, match=r"no train\.rec in it \(one of Faces\.rec, other\.rec with --root\)"):
        options_for("recordio", root=tmp_path, out=tmp_path / "out", aligned="arcface")
    assert (
        options_for("recordio", root=path.with_name("other.rec"), out=tmp_path, aligned="seed").root.name == "other.rec"
    )
    with pytest.raises(SourceError, match="no RecordIO file: it does not begin with a record"):
        rows_of(tmp_path / "other.rec")
    with pytest.raises(SourceError, match="not a regular file; expected a RecordIO file"):
        rows_of(tmp_path)


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
