"""Reads and decodes image files; an incomplete or damaged image is an error with a reason."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from shards.errors import LrfrError

_JPEG_START = b"\xff\xd8"
_EXIF_BYTES = 1 << 16  # an EXIF segment starts within the first 64 KiB
_HARMLESS = "extraneous bytes before marker"  # a libjpeg warning that affects no pixel


class ImageError(LrfrError):
    """An image file that cannot be used. The message becomes a row's ``error_message``."""


def read_regular(path: Path | str) -> bytes:
    """Returns the content of a regular file.

    Raises:
        OSError: the file cannot be read, or is a pipe or device, which might block for ever.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        data = os.read(handle, facts.st_size + 1)
        if len(data) == facts.st_size:
            return data
        with open(handle, "rb", closefd=False) as stream:  # larger than one call reads, or growing
            return data + stream.read()
    finally:
        os.close(handle)


def decode(path: Path) -> np.ndarray:
    """Decodes an image file.

    Returns:
        (H, W, 3) uint8 BGR, rotated according to its EXIF tag.

    Raises:
        ImageError: empty, truncated, damaged, not an image, or not readable.
    """
    try:
        data = read_regular(path)
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from None
    return decode_bytes(data)


def decode_bytes(data: bytes, *, grey: bool = False) -> np.ndarray:
    """Decodes the content of an image file, see ``decode``.

    Args:
        grey: return a one-component JPEG as (H, W), which makes a later warp three times as fast.
    """
    if not data:
        raise ImageError("empty file")
    return _decode_jpeg(data, grey) if data.startswith(_JPEG_START) else _decode_any(data)


def _decode_jpeg(data: bytes, grey: bool) -> np.ndarray:
    """Decodes with simplejpeg, which reports damage; OpenCV returns the same pixels but silently fills gaps with grey."""
    try:
        components = simplejpeg.decode_jpeg_header(data)[2]
        if components == "CMYK" or b"Exif" in data[:_EXIF_BYTES]:
            simplejpeg.decode_jpeg(data, "GRAY")
            return _decode_any(data)  # converts the colours and applies the rotation
        if grey and components == "Gray":
            return simplejpeg.decode_jpeg(data, "GRAY")[..., 0]
        return simplejpeg.decode_jpeg(data, "BGR")
    except ValueError as error:
        if _HARMLESS in str(error):
            return _decode_any(data)
        raise ImageError(f"damaged JPEG ({len(data)} bytes): {error}") from None


def _decode_any(data: bytes) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise ImageError(f"cannot be decoded: {error.err}") from None
    if image is None:
        raise ImageError(f"cannot be decoded ({len(data)} bytes, not an image or damaged)")
    return image
