"""Checks the coded strips and tiles of TIFF files, of whose damage neither OpenCV nor Pillow tells.

libtiff, which both use, reads an image's rows and no further: it misses the checksum of a Deflate stream, and codes that
stand for more than the rows. Of damage to a JPEG it merely warns. Raw rows need no check: OpenCV finds them cut. Those
of fax images of two colours (CCITT) are not checked.

Source: TIFF 6.0 (sections 9, 13, 14, 15), Adobe's TIFF Technical Notes 1 to 3 (JPEG and Deflate).
"""

from __future__ import annotations

import io
import itertools
import zlib
from collections.abc import Callable, Iterator

from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from pipeline.sources import jpeg

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _COLOURS, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIP_OFFSETS, _SAMPLES, _STRIP_ROWS, _STRIP_SIZES, _PLANES = 273, 277, 278, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_SIZES, _JPEG_TABLES = 322, 323, 324, 325, 347
_YCBCR = 6  # colours that may be sampled: the rows have another length
_LOWEST_BIT_FIRST = 2
_RAW, _LZW, _JPEG, _DEFLATE, _OLD_DEFLATE, _PACKBITS = 1, 5, 7, 8, 32946, 32773
_CHECKED = frozenset((_LZW, _JPEG, _DEFLATE, _OLD_DEFLATE, _PACKBITS))
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_LZW_CLEAR, _LZW_END, _LZW_BITS = 256, 257, (9, 12)
_CHUNK = 1 << 16  # bytes that are inflated at a time


def size(data: bytes) -> tuple[int, int]:
    """(width, height) in px of the first image of a TIFF, or of one of its tiles where that is larger."""
    tags = _tags(data)
    return max(tags[_WIDTH], tags.get(_TILE_WIDTH, 0)), max(tags[_HEIGHT], tags.get(_TILE_HEIGHT, 0))


def check(data: bytes) -> None:
    """Checks the strips or tiles of the first image of a TIFF. Their bytes are counted, and nothing is kept of them.

    Raises:
        ValueError: one is damaged.
        zlib.error: one is damaged.
    """
    tags = _tags(data)
    compression = tags.get(_COMPRESSION, _RAW)
    if compression not in _CHECKED:
        return
    parts = _parts(data, tags)
    if compression == _JPEG:
        tables = tags.get(_JPEG_TABLES, jpeg.START + jpeg.END)
        for part in parts:
            jpeg.check(tables[: -len(jpeg.END)] + part[len(jpeg.START) :])
        return
    if tags.get(_FILL_ORDER) == _LOWEST_BIT_FIRST:
        parts = (part.translate(_REVERSED) for part in parts)
    if compression in (_DEFLATE, _OLD_DEFLATE):
        for part in parts:
            _inflate(part)
    elif tags.get(_COLOURS) != _YCBCR:
        _check_lengths(parts, tags, _lzw_length if compression == _LZW else _packbits_length)


def _tags(data: bytes) -> ImageFileDirectory_v2:
    return TiffImageFile(io.BytesIO(data)).tag_v2


def _parts(data: bytes, tags: ImageFileDirectory_v2) -> Iterator[bytes]:
    """Yields the coded strips or tiles."""
    where = (_TILE_OFFSETS, _TILE_SIZES) if _TILE_OFFSETS in tags else (_STRIP_OFFSETS, _STRIP_SIZES)
    offsets, counts = (tags[tag] for tag in where)
    if sum(counts) > len(data):
        raise ValueError("strips or tiles are cut, or lie on one another")
    for offset, count in zip(offsets, counts, strict=True):
        yield data[offset : offset + count]


def _check_lengths(parts: Iterator[bytes], tags: ImageFileDirectory_v2, length: Callable[[bytes], int]) -> None:
    for part, sizes in zip(parts, _sizes(tags), strict=False):
        if (found := length(part)) not in sizes:
            raise ValueError(f"a strip or tile has {found} bytes instead of {max(sizes)}")


def _sizes(tags: ImageFileDirectory_v2) -> Iterator[set[int]]:
    """Yields for each strip or tile the bytes that it may have when decoded."""
    width, height, samples = tags[_WIDTH], tags[_HEIGHT], tags.get(_SAMPLES, 1)
    bits = tags.get(_BITS, (1,))[0]
    planes = samples if tags.get(_PLANES) == 2 else 1
    if _TILE_OFFSETS in tags:
        yield from itertools.repeat({_row(tags[_TILE_WIDTH], bits * samples // planes) * tags[_TILE_HEIGHT]})
    row = _row(width, bits * samples // planes)
    rows = min(tags.get(_STRIP_ROWS, height), height)
    for _ in range(planes):
        for first in range(0, height, rows):
            yield {row * rows, row * min(rows, height - first)}  # some programs fill up the last strip


def _row(width: int, bits: int) -> int:
    """Bytes of a row."""
    return (width * bits + 7) // 8


def _inflate(part: bytes) -> None:
    inflater = zlib.decompressobj()
    while not inflater.eof:
        if not inflater.decompress(part, _CHUNK) and not inflater.eof:
            raise ValueError("a Deflate stream is cut")
        part = inflater.unconsumed_tail


def _packbits_length(part: bytes) -> int:
    length = at = 0
    while at < len(part):
        count = part[at]
        if count < 128:
            length += count + 1
            at += count + 1
        elif count > 128:
            length += 257 - count
            at += 1
        at += 1
    if at > len(part):
        raise ValueError("a PackBits run is cut")
    return length


def _lzw_length(part: bytes) -> int:
    """Bytes that LZW codes stand for."""
    fresh = [1] * 256 + [0, 0]  # bytes that each code stands for; the last two are _LZW_CLEAR and _LZW_END
    lengths = fresh.copy()
    length = previous = bits = count = 0
    width = _LZW_BITS[0]
    for byte in part:
        bits, count = bits << 8 | byte, count + 8
        if count < width:
            continue
        count -= width
        code, bits = bits >> count, bits & (1 << count) - 1
        if code == _LZW_END:
            break
        if code == _LZW_CLEAR:
            lengths, width, previous = fresh.copy(), _LZW_BITS[0], 0
            continue
        if previous:
            lengths.append(previous + 1)
        if code >= len(lengths):
            raise ValueError("an LZW code is not in the table")
        previous = lengths[code]
        length += previous
        if len(lengths) + 1 >= 1 << width and width < _LZW_BITS[1]:
            width += 1
    return length
