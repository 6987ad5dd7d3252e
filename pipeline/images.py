"""Reads source images; a file that does not hold a whole image is an error with a reason."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

_JPEG_START, _JPEG_END, _JPEG_SCAN = b"\xff\xd8", b"\xff\xd9", b"\xff\xda"


class ImageError(Exception):
    """An image file that does not hold a whole image; the message is the row's reason."""


def decode(path: Path) -> np.ndarray:
    """The (H, W, 3) uint8 BGR image in a file, turned upright by its EXIF tag.

    OpenCV fills what a truncated JPEG lacks with grey and says nothing to its caller, so the end is looked
    for: no end-of-image marker after the last start of scan means that data is missing.

    Raises:
        ImageError: empty, truncated, not an image, or not readable.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from None
    if not data:
        raise ImageError("empty file")
    if data[:2] == _JPEG_START and data.rfind(_JPEG_END) < data.rfind(_JPEG_SCAN):
        raise ImageError(f"truncated JPEG ({len(data)} bytes)")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise ImageError(f"cannot be decoded: {error.err}") from None
    if image is None:
        raise ImageError(f"cannot be decoded ({len(data)} bytes, not an image or damaged)")
    return image
