"""RecordIO files: counted, tried, and what lies beside them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from commands.diagnosis.data_sets import data_set_findings
from commands.diagnosis.layouts import find_layouts
from pipeline.sources.source import SourceError
from tests.commands.diagnosis.conftest import of
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
    assert any(text.startswith("bad records: 1, first ") for text in of(found(tmp_path), "warn"))


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
