"""The model file: MediaPipe's Face Landmarker, a zip with the two networks that find a face and its points."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import zipfile
from pathlib import Path

from shards.errors import LrfrError
from shards.files import open_regular
from shards.messages import command

# Apache-2.0, of Google. The file is not part of this repository; `fetch landmarker` downloads it.
FILE_NAME = "face_landmarker.task"
FOLDER = "models"  # below $LRFR_DATA
URL = "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task"
SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
BYTES = 3_758_596
_DETECTOR, _LANDMARKER = "face_detector.tflite", "face_landmarks_detector.tflite"


class LandmarkerError(LrfrError):
    """The landmark model, or the library that runs it, is absent or not the expected one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Graphs:
    """The two networks, each the content of a TFLite file."""

    detector: bytes
    landmarker: bytes


def read_model(path: Path) -> Graphs:
    """Reads the model file.

    Only the file with digest ``SHA256`` is accepted: its networks run as native code, and the published accuracy is
    that of this file.

    Raises:
        LandmarkerError: the file is absent or another one.
    """
    try:
        with open_regular(path) as stream:
            data = stream.read(BYTES + 1)
    except FileNotFoundError:
        raise LandmarkerError(
            f"{path}: no landmark model; run: {command('fetch', 'landmarker')}, or give --model PATH to landmarks"
        ) from None
    except OSError as error:
        raise LandmarkerError(f"{path}: the landmark model cannot be read: {error.strerror or error}") from None
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        size = f"{len(data):,} bytes" if len(data) <= BYTES else f"more than {BYTES:,} bytes"
        raise LandmarkerError(
            f"{path}: not MediaPipe's {FILE_NAME}, float16, version 1 ({size}, SHA-256 {found[:12]}..., expected"
            f" {BYTES:,} bytes, {SHA256[:12]}...); run: {command('fetch', 'landmarker')}"
        )
    with zipfile.ZipFile(io.BytesIO(data)) as bundle:
        return Graphs(detector=bundle.read(_DETECTOR), landmarker=bundle.read(_LANDMARKER))
