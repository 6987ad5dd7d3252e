"""Image formats other than JPEG: how a file states its size, and who checks that it is whole.

The size is read here, from the first bytes, because decoders allocate memory for the stated size at once.
"""

from __future__ import annotations

import dataclasses
import io
import re
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.SunImagePlugin import SunImageFile
from PIL.WebPImagePlugin import WebPImageFile

from pipeline.images import tiff

_BLANKS = rb"(?:\s|#[^\n]*\n)+"
_MAXIMA = (255, 65535)  # that OpenCV scales to 8 bits
_PNM_MAXIMUM = re.compile(rb"P[2356]" + 2 * (_BLANKS + rb"\d{1,18}") + _BLANKS + rb"(\d{1,18})\s")
_PNM = re.compile(rb"P[1-6Ff]" + _BLANKS + rb"(\d{1,18})" + _BLANKS + rb"(\d{1,18})\s")
_HDR = re.compile(rb"\n[-+][XY] +(\d{1,18}) +[-+][XY] +(\d{1,18})")

# What a byte can hold in px, more than any encoder reaches. Some formats have no bound: an image of one colour takes a few
# bytes whatever its size. The encoders that were tried need a byte for 76,000 px.
_NO_BOUND = 1 << 17
_DEFLATED = 1032 * 8  # px of one bit
_FEW_PIXELS = 1 << 20  # which cost little memory, however few bytes state them

# Zero bytes on end in WebP data. Those that were tried have up to 6, and an image of one colour one for each 10,000 px.
_WEBP_ZEROS, _WEBP_PIXELS_PER_ZERO = 32, 1 << 12

_PNG_CHUNKS = frozenset((b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT"))  # transparency, rotation and animation
_AVIF_HEADER = 1 << 16
_PNG_END = b"\0\0\0\0IEND"

Size = Callable[[bytes], tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Format:
    """One image format.

    Attributes:
        signature: a regular expression that matches the first bytes.
        size: returns two sides in px, in either order. Raises any exception for a file that does not state them.
        pixels_per_byte: more than a file of this format holds.
        check: raises any exception for a damaged file that OpenCV reads. None where OpenCV alone is enough: it compares
            checksums, or damage does not show.
        plain: returns what OpenCV has to decode instead of the file. Raises any exception for a damaged file.
        upright: turns what OpenCV decodes as the file states. None where OpenCV does.
        check_line_feeds: a copy in text mode can look sound. It cannot if the signature shows it.
    """

    signature: bytes
    size: Size
    pixels_per_byte: int
    check: Callable[[bytes], None] | None = None
    plain: Callable[[bytes], bytes] | None = None
    upright: Callable[[bytes, np.ndarray], np.ndarray] | None = None
    check_line_feeds: bool = True

    def can_hold(self, width: int, height: int, data: bytes) -> bool:
        """Returns False if the file ``data`` is too short for an image of this size."""
        return width * height <= max(self.pixels_per_byte * len(data), _FEW_PIXELS)


_OTHERS = (
    (rb"\s*<(?:!doctype|html|head|svg|\?xml)", "a web page or XML, not an image; download it again"),
    (rb"version https://git-lfs", "a pointer of Git LFS, not the image; run git lfs pull"),
    (rb"....ftyphe[iv]", "HEIC, which OpenCV does not read; convert it to JPEG or PNG"),
)


def foreign(data: bytes) -> str:
    """Names what often lies in place of an image, such as a web page, and what to do; empty for other files."""
    return next((text for form, text in _OTHERS if re.match(form, data[:200], re.DOTALL | re.IGNORECASE)), "")


def identify(data: bytes) -> Format | None:
    """Returns the format of a file; None for JPEG, and for what is not an image that OpenCV reads."""
    return next((one for one in _FORMATS if re.match(one.signature, data, re.DOTALL)), None)


def _fixed(layout: str, offset: int) -> Size:
    """The size stands at a fixed place."""

    def size(data: bytes) -> tuple[int, int]:
        first, second = struct.unpack_from(layout, data, offset)
        return abs(first), abs(second)

    return size


def _matched(pattern: re.Pattern[bytes]) -> Size:
    """The size stands in a header of text."""

    def size(data: bytes) -> tuple[int, int]:
        found = pattern.search(data)
        if found is None:
            raise ValueError("no size is stated")
        return int(found[1]), int(found[2])

    return size


def _plain_png(data: bytes) -> bytes:
    """Returns a PNG without the chunks that no pixel depends on, after a comparison of the others' checksums.

    OpenCV allocates what a chunk states, up to 4 GiB, and prints what libpng says of any chunk.
    """
    parts, at = [data[:8]], 8
    while not data.startswith(_PNG_END, at):
        kind = data[at + 4 : at + 8]
        end = at + 12 + int.from_bytes(data[at : at + 4])
        if end >= len(data) or not kind.isalpha():
            raise ValueError("a chunk is cut or shifted")
        if kind[:1].isupper() or kind in _PNG_CHUNKS:
            if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
                raise ValueError("a chunk has another checksum than stated")
            parts.append(data[at:end])
        at = end
    return b"".join((*parts, data[at : at + 12]))


def _plain_pnm(data: bytes) -> bytes:
    """Returns a PNM whose largest value OpenCV knows: it does not scale others, and most such images would be black."""
    found = _PNM_MAXIMUM.match(data)
    if found is None or int(found[1]) in _MAXIMA:
        return data
    pixels = np.asarray(PpmImageFile(io.BytesIO(data)))
    if pixels.dtype != np.uint8:  # grey of 16 bits
        pixels = (pixels.astype(np.uint32) // 257).astype(np.uint8)
    height, width = pixels.shape[:2]
    return b"P%d %d %d 255\n%b" % (6 if pixels.ndim == 3 else 5, width, height, pixels.tobytes())


def _check_pam(data: bytes) -> None:
    header = data[: data.index(b"ENDHDR")]
    found = {name: int(number) for name, number in re.findall(rb"\n(MAXVAL|DEPTH) +(\d{1,18})", header)}
    if found.get(b"MAXVAL", 255) not in _MAXIMA:
        raise ValueError(f"its largest value is {found[b'MAXVAL']}, expected 255 or 65535")
    if found.get(b"DEPTH") not in (1, 3):  # OpenCV leaves pixels unset where there is an alpha channel
        raise ValueError(f"it has {found.get(b'DEPTH', 0)} channels, expected 1 or 3")


def _bmp(data: bytes) -> tuple[int, int]:
    (header,) = struct.unpack_from("<I", data, 14)
    return (_fixed("<HH", 18) if header == 12 else _fixed("<ii", 18))(data)  # 12: OS/2


def _webp(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = _fixed("<HH", 26)(data)
    return width & 0x3FFF, height & 0x3FFF


def _read_by(pillow: type[ImageFile]) -> Callable[[bytes], None]:
    """A check by Pillow, which finds damage that OpenCV does not."""
    return lambda data: pillow(io.BytesIO(data)).load() and None


def _check_webp(data: bytes) -> None:
    chunk = int.from_bytes(data[16:20], "little")
    length = int.from_bytes(data[4:8], "little") + 8
    if not len(data) == length == 20 + chunk + (chunk & 1):  # OpenCV is enough for a file of one chunk
        WebPImageFile(io.BytesIO(data)).load()
    width, height = _webp(data)
    zeros, at = b"\0" * (_WEBP_ZEROS + width * height // _WEBP_PIXELS_PER_ZERO), 12
    while at < len(data):
        end = at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] in (b"VP8 ", b"VP8L") and data.find(zeros, at, end) >= 0:
            raise ValueError("a part of its data is zeros")
        at = end + (end & 1)


def _pam(data: bytes) -> tuple[int, int]:
    header = data[: data.index(b"ENDHDR")]
    first, second = (int(re.search(rb"\n%s +(\d{1,18})" % side, header)[1]) for side in (b"WIDTH", b"HEIGHT"))  # type: ignore[index]
    return first, second


def _jpeg2000(data: bytes) -> tuple[int, int]:
    start = data.index(b"\xff\x4f\xff\x51")  # SOC and SIZ; the size in the JP2 box is not the one that is decoded
    right, bottom, left, top = struct.unpack_from(">4I", data, start + 8)
    return right - left, bottom - top


def _avif(data: bytes) -> tuple[int, int]:
    sizes = [struct.unpack_from(">II", data, found.end() + 4) for found in re.finditer(b"ispe", data[:_AVIF_HEADER])]
    return max(sizes, key=lambda size: size[0] * size[1])


def _avif_upright(data: bytes, image: np.ndarray) -> np.ndarray:
    """Source: ISO/IEC 23008-12:2022, 6.5.10 (irot: quarter turns against the clock) and 6.5.12 (imir, after it)."""
    turned = re.search(rb"\0\0\0\x09irot(.)", data[:_AVIF_HEADER], re.DOTALL)
    mirrored = re.search(rb"\0\0\0\x09imir(.)", data[:_AVIF_HEADER], re.DOTALL)
    image = np.rot90(image, turned[1][0] & 3) if turned else image
    if mirrored:
        image = image[:, ::-1] if mirrored[1][0] & 1 else image[::-1]
    return np.ascontiguousarray(image)


_FORMATS = (
    Format(rb"\x89PNG\r\n\x1a\n", _fixed(">II", 16), _DEFLATED, plain=_plain_png, check_line_feeds=False),
    Format(rb"BM", _bmp, 128, _read_by(BmpImageFile)),  # runs of 255 px in two bytes
    Format(rb"RIFF....WEBP", _webp, _NO_BOUND, _check_webp),
    Format(rb"II\*\0|MM\0\*|II\+\0|MM\0\+", tiff.size, _NO_BOUND, tiff.check),
    Format(rb"P[1-3]\s", _matched(_PNM), 1, _read_by(PpmImageFile), _plain_pnm, check_line_feeds=False),
    Format(rb"P[4-6]\s", _matched(_PNM), 8, _read_by(PpmImageFile), _plain_pnm),
    Format(rb"P[Ff]\s", _matched(_PNM), 1),
    Format(rb"P7\s", _pam, 8, _check_pam),
    Format(rb"GIF8[79]a", _fixed("<HH", 6), 2731, _read_by(GifImageFile)),  # 4096 px in a code of 12 bits
    Format(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", _jpeg2000, _NO_BOUND, _read_by(Jpeg2KImageFile)),
    Format(rb"....ftyp", _avif, _NO_BOUND, upright=_avif_upright),
    Format(rb"\x59\xa6\x6a\x95", _fixed(">II", 4), 683, _read_by(SunImageFile)),  # 256 bytes of 8 px in three bytes
    Format(rb"#\?R", _matched(_HDR), 16),  # runs of 127 px in two bytes, four times
)
