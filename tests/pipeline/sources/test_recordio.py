"""RecordIO files: listed by ranges, by labels or without an index."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import struct

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from nvidia.dali import fn, pipeline_def

from pipeline.build import build, options_for
from pipeline.sources import recordio_file
from pipeline.sources.recordio import RecordReader
from pipeline.sources.source import SourceError
from shards.index import ShardIndex, ShardReader
from shards.schema import Manifest
from shards.verify import verify
from tests.pipeline.sources.records import SIDE, expected, rows_of
from tests.processes import error_of
from tools.made_recordio import MAGIC, insightface_payloads, packed, write_record, write_records


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
