"""Checks the coded strips and tiles of TIFF files, whose damage neither OpenCV nor Pillow reports.

libtiff, which both use, reads an image's rows and no further: it misses the checksum of a Deflate stream, and codes that
stand for more than the rows. Of damage to a JPEG it merely warns, and OpenCV keeps what was read before an error. Pillow
is left out but for raw rows, as its libtiff prints to the standard error. Fax images of two colours are not checked.

Source: TIFF 6.0 (sections 9, 13, 14, 15), Adobe's TIFF Technical Notes 1 to 3 (JPEG and Deflate).
"""

from __future__ import annotations

import io
import itertools
import zlib
from collections.abc import Callable, Iterator

from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from pipeline.images import jpeg, jpeg_damage

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _COLOURS, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIP_OFFSETS, _SAMPLES, _STRIP_ROWS, _STRIP_SIZES, _PLANAR = 273, 277, 278, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_SIZES, _JPEG_TABLES, _SAMPLING = 322, 323, 324, 325, 347, 530
_YCBCR = 6
_LOWEST_BIT_FIRST = 2
_RAW, _LZW, _JPEG, _DEFLATE, _OLD_DEFLATE, _PACKBITS = 1, 5, 7, 8, 32946, 32773
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_LZW_CLEAR, _LZW_END, _LZW_BITS = 256, 257, (9, 12)
_CHUNK = 1 << 16  # bytes that are inflated at a time


def size(data: bytes) -> tuple[int, int]:
    """(width, height) in px of the first image of a TIFF, or of one of its tiles where that is larger."""
    tags = TiffImageFile(io.BytesIO(data)).tag_v2
    return max(tags[_WIDTH], tags.get(_TILE_WIDTH, 0)), max(tags[_HEIGHT], tags.get(_TILE_HEIGHT, 0))


def check(data: bytes) -> None:
    """Checks the strips or tiles of the first image of a TIFF. Their bytes are counted, and nothing is kept of them.

    Raises:
        Exception: of any kind; one is damaged or missing.
    """
    image = TiffImageFile(io.BytesIO(data))
    tags = image.tag_v2
    compression = tags.get(_COMPRESSION, _RAW)
    if compression == _RAW:
        image.load()
    elif compression == _JPEG or compression in _CHECKED:
        parts = _parts(data, tags)
        for width, rows, filled_up in _shapes(tags):
            part = next(parts, b"")
            if compression == _JPEG:
                _check_jpeg(part, tags, width, rows)
                continue
            if tags.get(_FILL_ORDER) == _LOWEST_BIT_FIRST:
                part = part.translate(_REVERSED)
            found, expected = _CHECKED[compression](part), _length(tags, width, rows)
            if found not in (expected, _length(tags, width, filled_up)):
                raise ValueError(f"a strip or tile has {found} bytes instead of {expected}")


def _parts(data: bytes, tags: ImageFileDirectory_v2) -> Iterator[bytes]:
    """Yields the coded strips or tiles."""
    where = (_TILE_OFFSETS, _TILE_SIZES) if _TILE_OFFSETS in tags else (_STRIP_OFFSETS, _STRIP_SIZES)
    offsets, counts = (tags.get(tag, ()) for tag in where)
    if not counts:
        raise ValueError("the sizes of the strips or tiles are missing")
    if sum(counts) > len(data):
        raise ValueError("strips or tiles are cut, or lie on one another")
    for offset, count in zip(offsets, counts, strict=True):
        yield data[offset : offset + count]


def _shapes(tags: ImageFileDirectory_v2) -> Iterator[tuple[int, int, int]]:
    """Yields for each strip or tile its width and rows, and the rows that it has if it is the last and filled up."""
    width, height = tags[_WIDTH], tags[_HEIGHT]
    for _ in range(_planes(tags)):
        if _TILE_OFFSETS in tags:
            across, down = tags[_TILE_WIDTH], tags[_TILE_HEIGHT]
            yield from itertools.repeat((across, down, down), -(-width // across) * -(-height // down))
        else:
            rows = min(tags.get(_STRIP_ROWS, height), height)
            for first in range(0, height, rows):
                yield width, min(rows, height - first), rows


def _planes(tags: ImageFileDirectory_v2) -> int:
    """Parts of the file that have one sample of each pixel; one if all samples stand together."""
    return tags.get(_SAMPLES, 1) if tags.get(_PLANAR) == 2 else 1


def _length(tags: ImageFileDirectory_v2, width: int, rows: int) -> int:
    """Bytes of a strip or tile when decoded."""
    bits, planes = tags.get(_BITS, (1,))[0], _planes(tags)
    if tags.get(_COLOURS) == _YCBCR and planes == 1:  # both chroma samples follow those of a block of px
        across, down = tags.get(_SAMPLING, (2, 2))
        return -(-width // across) * -(-rows // down) * (across * down + 2) * bits // 8
    return (width * bits * tags.get(_SAMPLES, 1) // planes + 7) // 8 * rows


def _check_jpeg(part: bytes, tags: ImageFileDirectory_v2, width: int, rows: int) -> None:
    tables = tags.get(_JPEG_TABLES, jpeg.START + jpeg.END)
    header = jpeg_damage.check(tables[: -len(jpeg.END)] + part[len(jpeg.START) :])
    if (header.width < width or header.height < rows) and _planes(tags) == 1:  # a plane may be sampled
        raise ValueError(f"a strip or tile has {header.width}x{header.height} px instead of {width}x{rows}")


def _inflated_length(part: bytes) -> int:
    inflater, length = zlib.decompressobj(), 0
    while not inflater.eof:
        chunk = inflater.decompress(part, _CHUNK)
        if not chunk and not inflater.eof:
            raise ValueError("a Deflate stream is cut")
        length, part = length + len(chunk), inflater.unconsumed_tail
    return length


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


_CHECKED: dict[int, Callable[[bytes], int]] = {  # bytes that a strip or tile stands for
    _LZW: _lzw_length,
    _DEFLATE: _inflated_length,
    _OLD_DEFLATE: _inflated_length,
    _PACKBITS: _packbits_length,
}
