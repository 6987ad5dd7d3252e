"""Reads source images, and resizes whole ones; a file that does not hold a whole image is an error with a reason."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from shards.errors import LrfrError

_JPEG_START = b"\xff\xd8"
_HEAD = 1 << 16  # bytes in which an EXIF segment starts
_HARMLESS = "extraneous bytes before marker"  # libjpeg loses no pixel over these


class ImageError(LrfrError):
    """An image file that does not hold a whole image; the message is the row's reason."""


def read_regular(path: Path | str) -> bytes:
    """The content of a file. Raises: OSError: it cannot be read, or is a pipe or device, which might never end."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        data = os.read(handle, facts.st_size + 1)
        if len(data) == facts.st_size:
            return data
        with open(handle, "rb", closefd=False) as stream:  # beyond what one call reads, or growing
            return data + stream.read()
    finally:
        os.close(handle)


def decode(path: Path) -> np.ndarray:
    """The (H, W, 3) uint8 BGR image in a file, turned upright by its EXIF tag.

    Raises:
        ImageError: empty, truncated, damaged, not an image, or not readable.
    """
    try:
        data = read_regular(path)
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from None
    return decode_bytes(data)


def decode_bytes(data: bytes, *, grey: bool = False) -> np.ndarray:
    """As ``decode``, of a file's content.

    Args:
        grey: a JPEG of one component may be given as (H, W), which is a third of the work to whoever warps it.
    """
    if not data:
        raise ImageError("empty file")
    return _decode_jpeg(data, grey) if data.startswith(_JPEG_START) else _decode_any(data)


def _decode_jpeg(data: bytes, grey: bool) -> np.ndarray:
    """OpenCV fills what a damaged JPEG lacks with grey and says nothing; simplejpeg gives the same pixels and does."""
    try:
        components = simplejpeg.decode_jpeg_header(data)[2]
        if components == "CMYK" or b"Exif" in data[:_HEAD]:
            simplejpeg.decode_jpeg(data, "GRAY")
            return _decode_any(data)  # converts and turns as users of OpenCV expect
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


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """The (size, size, 3) uint8 image, by Pillow's bicubic, that a (H, W, 3) one becomes; its aspect ratio is not kept."""
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))
