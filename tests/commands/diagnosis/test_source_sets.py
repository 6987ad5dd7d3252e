"""Sets of other tools: recognised, counted, and some of their images tried."""

from __future__ import annotations

import csv
import io
import tarfile

import cv2
import numpy as np
import pytest

from commands.diagnosis.data_sets import data_set_findings
from commands.diagnosis.layouts import find_layouts
from pipeline.sources.source import SourceError
from tests.commands.diagnosis.probes import of
from tools.made_recordio import insightface_payloads, packed, write_records

IMAGE = cv2.imencode(".jpg", np.full((112, 112, 3), 128, np.uint8))[1].tobytes()


def found(folder):
    return list(data_set_findings("recordio", folder))


def test_counts_and_verification_sets(tmp_path):
    path = write_records(tmp_path / "faces", insightface_payloads([[IMAGE, IMAGE], [IMAGE]]))
    (tmp_path / "faces" / "lfw.bin").touch()
    assert list(find_layouts(tmp_path)) == [("recordio", tmp_path / "faces")]
    findings = found(tmp_path / "faces")
    assert of(findings, "ok") == [f"{path}: 3 images of 2 people", "3 images of it were decoded"]
    assert of(findings, "note") == ["verification sets: lfw.bin"]
    assert findings[-1].remedy == f"lrfr bench pairs {tmp_path}/faces/lfw.bin"


def test_images_that_are_none(tmp_path):
    write_records(tmp_path, insightface_payloads([[IMAGE], [b"no image"]]))
    (text,) = of(found(tmp_path), "warn")
    assert text.startswith("unreadable: 1 of 2 images tried, first 000001/00000002: ")


def test_bad_records(tmp_path):
    write_records(tmp_path, [packed(0, 0, IMAGE), packed(float("nan"), 1, IMAGE)])
    assert any(text.startswith("bad entries: 1, first ") for text in of(found(tmp_path), "warn"))


def test_without_an_index(tmp_path):
    path = write_records(tmp_path, [packed(0, 0, IMAGE)], index=False)
    assert of(found(tmp_path), "warn") == [f"{path}: without train.idx it is not counted"]


def test_an_empty_file(tmp_path):
    path = write_records(tmp_path, [packed(0, 0, IMAGE)])
    path.write_bytes(b"")
    assert of(found(tmp_path), "FAIL") == [f"{path}: no usable image"]
    path.with_suffix(".idx").write_text("")
    with pytest.raises(SourceError, match="no index of records"):
        found(tmp_path)


def write_tar(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def test_webdataset(tmp_path):
    files = {
        "a.jpg": IMAGE,
        "a.cls": b"0",
        "b.jpg": IMAGE,
        "b.cls": b"1",
        "c.jpg": b"none",
        "c.cls": b"1",
        "d.jpg": IMAGE,
    }
    write_tar(tmp_path / "tars" / "train-0.tar", files)
    assert list(find_layouts(tmp_path)) == [("webdataset", tmp_path / "tars")]
    findings = list(data_set_findings("webdataset", tmp_path / "tars"))
    assert of(findings, "ok") == [f"{tmp_path}/tars: 4 images of 3 people"]
    bad, unreadable = of(findings, "warn")
    assert bad.startswith("bad entries: 1, first ")
    assert unreadable.startswith("unreadable: 1 of 3 images tried, first ")


def test_archives_beside_folders_are_no_webdataset(tmp_path):
    write_tar(tmp_path / "lfw.tar", {"a/1.jpg": IMAGE})
    write_records(tmp_path / "faces", [packed(0, 0, IMAGE)])
    assert list(find_layouts(tmp_path)) == [("recordio", tmp_path / "faces")]


def test_hugging_face_folder(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    with open(folder / "metadata.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([["file_name", "label"], ["1.jpg", "a"], ["2.jpg", "b"]])
    for name in ("1.jpg", "2.jpg"):
        (folder / name).write_bytes(IMAGE)
    assert list(find_layouts(tmp_path)) == [("huggingface", folder)]
    findings = list(data_set_findings("huggingface", folder))
    assert of(findings, "ok") == [f"{folder}: 2 images of 2 people", "2 images of it were decoded"]
