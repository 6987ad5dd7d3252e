"""The model file: absent, another file, unreadable."""

from __future__ import annotations

import pytest

from pipeline.landmarks.model import BYTES, SHA256, LandmarkerError, read_model


def error(path):
    with pytest.raises(LandmarkerError) as caught:
        read_model(path)
    return str(caught.value)


def test_an_absent_file_says_how_to_get_it(tmp_path):
    path = tmp_path / "face.task"
    assert error(path) == f"{path}: no landmark model; run: lrfr fetch landmarker, or give --model PATH to landmarks"


@pytest.mark.parametrize(
    ("data", "size"), [(b"", "0 bytes"), (b"PK" * 9, "18 bytes"), (b"0" * (BYTES + 9), "more than")]
)
def test_another_file_is_refused(tmp_path, data, size):
    path = tmp_path / "face.task"
    path.write_bytes(data)
    message = error(path)
    assert message.startswith(f"{path}: not MediaPipe's face_landmarker.task, float16, version 1 ({size}")
    assert SHA256[:12] in message
    assert message.endswith("run: lrfr fetch landmarker")


def test_a_folder_is_refused(tmp_path):
    assert error(tmp_path) == f"{tmp_path}: the landmark model cannot be read: not a regular file"
