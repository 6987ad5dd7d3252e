"""Reads and decodes image files; an incomplete or damaged image is an error with a reason."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from PIL.JpegImagePlugin import JpegImageFile

from pipeline.images import formats, jpeg, jpeg_damage
from shards.errors import LrfrError
from shards.files import regular_handle
from shards.messages import counted

MAX_PIXELS = 1 << 28  # of an image, as stated in its file: 16384 x 16384
_MIN_BYTES_LIMIT = 1 << 26  # a file of 64 MiB is read however small its image may be
_LINE_FEEDS = 3  # fewer may follow carriage returns by chance
_TEXT_MODE = "line feeds became CR LF, as when it is copied in text mode; copy it again"


class ImageError(LrfrError):
    """An image file that cannot be used. The message becomes a row's ``error_message``."""


def check_bytes(size: int, max_bytes: int | None, what: str = "the file") -> None:
    """Raises: ImageError: an image file has more than ``max_bytes``."""
    if max_bytes is not None and size > max_bytes:
        raise ImageError(f"{what} has {size:,} bytes; at most {max_bytes:,} are read (--max-pixels)")


def read_regular(path: Path | str, max_bytes: int | None = None) -> bytes:
    """Returns the content of a regular file.

    Raises:
        OSError: the file cannot be read, or is a pipe or device, which might block for ever.
        ImageError: the file has more than ``max_bytes``; it is not read.
    """
    handle = regular_handle(path)
    try:
        size = os.fstat(handle).st_size
        check_bytes(size, max_bytes)
        data = os.read(handle, size + 1)
        if len(data) == size:
            return data
        with open(handle, "rb", closefd=False) as stream:  # larger than one call reads, or growing
            data += stream.read(-1 if max_bytes is None else max_bytes + 1 - len(data))
        check_bytes(len(data), max_bytes)
        return data
    except OSError as error:
        error.filename = str(path)  # `read` does not know it
        raise
    finally:
        os.close(handle)


def bytes_limit(max_pixels: int) -> int:
    """Size of the largest file that is read for an image of ``max_pixels``: four bytes a pixel, as raw formats take."""
    return max(4 * max_pixels, _MIN_BYTES_LIMIT)


def decode(path: Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decodes an image file.

    Args:
        max_pixels: an image that states more is an error, before memory is allocated for it.

    Returns:
        (H, W, 3) uint8 BGR, rotated according to its EXIF tag.

    Raises:
        ImageError: empty, truncated, damaged, too large, not an image, or not readable.
    """
    try:
        data = read_regular(path, bytes_limit(max_pixels))
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}") from None
    return decode_bytes(data, max_pixels=max_pixels)


def decode_bytes(data: bytes, *, grey: bool = False, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decodes the content of an image file, see ``decode``.

    Args:
        grey: return a one-component JPEG as (H, W), which makes a later warp three times as fast.

    Raises:
        ImageError: it cannot be used.
    """
    if not data:
        raise ImageError("empty file")
    try:
        if data.startswith(jpeg.START):
            return _decode_jpeg(data, grey, max_pixels)
        return _decode_other(data, max_pixels)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - decoders raise exceptions of any kind for damaged files
        raise ImageError(f"cannot be decoded ({len(data)} bytes): {type(error).__name__}: {error}") from None


def _decode_jpeg(data: bytes, grey: bool, max_pixels: int) -> np.ndarray:
    """Decodes with simplejpeg, which reports damage; OpenCV returns the same pixels but silently fills gaps with grey."""
    try:
        header = jpeg.read_header(data)
        _check_pixels(header.width, header.height, max_pixels)
        jpeg_damage.check_length(data, header)
        if jpeg_damage.passed_text_mode(data, header.scan):
            raise ValueError(_TEXT_MODE)
        if not jpeg.has_end(data, header):
            return _decode_unended(data)
        jpeg_damage.check_complete(data, header)
        if header.is_arithmetic:
            jpeg_damage.check_arithmetic(data, header)
        try:
            return _jpeg_pixels(data, header, grey)
        except ValueError:  # libjpeg warned
            return _decode_opencv(jpeg_damage.repaired(data, header))
    except ValueError as error:
        if "Insufficient memory" in str(error):  # libjpeg's words
            raise MemoryError(str(error)) from None
        raise ImageError(f"damaged JPEG ({len(data)} bytes): {error}") from None


def _decode_unended(data: bytes) -> np.ndarray:
    """Decodes a JPEG without an EOI marker. OpenCV and Pillow read it if enough filler follows its scan, and only then."""
    jpeg_damage.check(data)
    try:
        with contextlib.closing(JpegImageFile(io.BytesIO(data))) as image:
            image.load()
        return _decode_opencv(data)
    except (ImageError, OSError):
        raise ValueError(jpeg.CUT) from None


def _jpeg_pixels(data: bytes, header: jpeg.Header, grey: bool) -> np.ndarray:
    if header.components == 4 or header.may_turn:
        simplejpeg.decode_jpeg(data, "CMYK" if header.components == 4 else "GRAY")
        return _decode_opencv(data)  # converts the colours and applies the rotation
    if grey and header.components == 1:
        return simplejpeg.decode_jpeg(data, "GRAY")[..., 0]
    return simplejpeg.decode_jpeg(data, "BGR")


def _decode_other(data: bytes, max_pixels: int) -> np.ndarray:
    if problem := formats.foreign(data):
        raise ImageError(f"cannot be decoded ({counted(len(data), 'byte')}): {problem}")
    kind = formats.identify(data)
    if kind is None:
        raise ImageError(f"cannot be decoded ({counted(len(data), 'byte')}, not an image or damaged)")
    width, height = kind.size(data)
    _check_pixels(width, height, max_pixels)
    if not kind.can_hold(width, height, data):
        raise ImageError(f"damaged file ({len(data)} bytes): too short for the {width}x{height} px that it states")
    if kind.check_line_feeds and _passed_text_mode(data):
        raise ImageError(f"damaged file ({len(data)} bytes): {_TEXT_MODE}")
    image = _decode_opencv(kind.plain(data) if kind.plain else data)
    if kind.check:
        kind.check(data)
    return kind.upright(data, image) if kind.upright else image


def _decode_opencv(data: bytes) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError(error.err) from None
        raise ImageError(f"cannot be decoded: {error.err}") from None
    if image is None:
        raise ImageError(f"cannot be decoded ({counted(len(data), 'byte')}, not an image or damaged)")
    return image if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)  # a grey PFM stays grey


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if not (width and height):
        raise ImageError(f"the image states {width}x{height} px")
    if width * height > max_pixels:
        raise ImageError(f"the image states {width}x{height} px, --max-pixels is {max_pixels}")


def _passed_text_mode(data: bytes) -> bool:
    """Returns True if all line feeds follow carriage returns; nearly all other files are recognised by their first one.

    One or two may do so by chance, unless OpenCV reads the file that was copied, too, as other pixels.
    """
    first = data.find(b"\n")
    if first < 1 or data[first - 1] != ord("\r") or data.count(b"\r\n") != data.count(b"\n"):
        return False
    if data.count(b"\n") >= _LINE_FEEDS:
        return True
    copied, seen = _decoded(data.replace(b"\r\n", b"\n")), _decoded(data)
    return copied is not None and (seen is None or not np.array_equal(copied, seen))


def _decoded(data: bytes) -> np.ndarray | None:
    try:
        return _decode_opencv(data)
    except ImageError:
        return None
