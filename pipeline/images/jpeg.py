"""The structure of JPEG files: markers, segments, and what these state. Nothing is decoded.

Source: ITU-T T.81 (segments, B.1; scan header, B.2.3), and libjpeg-turbo's jdmarker.c.
"""

from __future__ import annotations

import dataclasses
import re

START = b"\xff\xd8"
END = b"\xff\xd9"
SOI, EOI, SOS, DQT, DRI, DHT = 0xD8, 0xD9, 0xDA, 0xDB, 0xDD, 0xC4
BASELINE, EXTENDED, PROGRESSIVE = 0xC0, 0xC1, 0xC2
_DAC, _JPG, _COM = 0xCC, 0xC8, 0xFE
_APP0, _APP1, _APP14, _APP15 = 0xE0, 0xE1, 0xEE, 0xEF
_FRAMES = frozenset(range(0xC0, 0xD0)) - {DHT, _JPG, _DAC}  # SOF markers
_FIRST_ARITHMETIC = 0xC9
_SEQUENTIAL = frozenset((BASELINE, EXTENDED, _FIRST_ARITHMETIC))
_JFIF_1_1 = b"JFIF\0\1\1\0\0\1\0\1\0\0"
# FF 00 is a byte of data, FF FF filler; TEM (01) and RST (D0 to D7) have no segment
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
# the EXIF entry of orientation 1 in both byte orders: tag, type, count, value
_UPRIGHT = (b"\x01\x12\0\x03\0\0\0\x01\0\x01", b"\x12\x01\x03\0\x01\0\0\0\x01\0")
CUT = "Premature end of JPEG file"  # libjpeg's words


@dataclasses.dataclass(frozen=True)
class Header:
    """What the segments before the first scan state.

    Attributes:
        frame: the SOF marker, which tells the coding process.
        may_turn: there is an EXIF segment that may state a rotation.
        scan: offset of the first SOS marker.
    """

    height: int
    width: int
    components: int
    frame: int
    may_turn: bool
    scan: int

    @property
    def is_arithmetic(self) -> bool:
        """Whether the codes are arithmetic rather than Huffman's."""
        return self.frame >= _FIRST_ARITHMETIC


def read_header(data: bytes) -> Header:
    """Reads the segments before the first scan; nothing is decoded.

    Raises:
        ValueError: there is no scan, or no frame header before it.
    """
    height = width = components = frame = 0
    may_turn, at = False, len(START)
    try:
        while True:
            at = next_marker(data, at)
            marker = data[at + 1]
            if marker in _FRAMES:
                frame = marker
                height, width = data[at + 5] << 8 | data[at + 6], data[at + 7] << 8 | data[at + 8]
                components = data[at + 9]
            elif marker == _APP1:
                may_turn |= _may_turn(data[at + 4 : at + 2 + (data[at + 2] << 8 | data[at + 3])])
            elif marker == SOS and components:
                return Header(height, width, components, frame, may_turn, at)
            elif marker in (SOI, EOI, SOS):
                raise ValueError("no image data")
            at += 2 + (data[at + 2] << 8 | data[at + 3])
    except IndexError:
        raise ValueError(CUT) from None


def _may_turn(content: bytes) -> bool:
    """Returns False for an APP1 segment that is not EXIF, or in which every orientation is that of an upright image."""
    return content.startswith(b"Exif") and any(content.count(entry[:2]) > content.count(entry) for entry in _UPRIGHT)


def has_end(data: bytes, header: Header) -> bool:
    """Returns True if there is an EOI marker after the header."""
    return data.rfind(END, header.scan) >= 0  # from the back: it is near the end


def next_marker(data: bytes, at: int) -> int:
    """Returns the offset of the next marker from ``at`` on; skips other bytes, as libjpeg does. Raises: IndexError."""
    found = _MARKER.search(data, at)
    if found is None:
        raise IndexError
    return found.start()


def plain_copy(data: bytes, header: Header) -> bytes:
    """Returns a JPEG as the standard has it: all that determines its pixels, and nothing that is odd yet harmless.

    Left out are metadata but EXIF, bytes between segments, and whatever follows the end. Versions and parameters that
    decoders ignore are set to what the standard states.

    Raises:
        ValueError: bytes between segments tell of damage to the one before them.
    """
    parts, at, previous, sequential = [START], len(START), SOI, True
    try:
        while True:
            start, at = at, next_marker(data, at)
            marker = data[at + 1]
            if previous not in (*range(_APP0, _APP15 + 1), _COM) and data[start:at].strip(b"\0\xff"):
                raise ValueError(f"Corrupt JPEG data: {at - start} extraneous bytes before marker 0x{marker:02x}")
            if marker == EOI:
                return b"".join([*parts, END])
            end = at + 2 + (data[at + 2] << 8 | data[at + 3])
            content = data[at + 4 : end]
            if marker in _FRAMES:
                sequential = marker in _SEQUENTIAL
            if marker == SOS and sequential:
                content = content[:-3] + b"\0\x3f\0"
            parts.append(_plain_segment(marker, content, header.components))
            if marker == SOS:
                start, end = end, next_marker(data, end)
                parts.append(data[start:end].rstrip(b"\xff"))
            at, previous = end, marker
    except IndexError:
        raise ValueError(CUT) from None


def segment(marker: int, content: bytes) -> bytes:
    """A JPEG segment: marker, length and content."""
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2) + content


def _plain_segment(marker: int, content: bytes, components: int) -> bytes:
    """Returns a segment, or nothing for metadata. The colour space depends on JFIF and Adobe segments: these are kept."""
    if marker == _APP0 and content.startswith(b"JFIF\0"):
        content = _JFIF_1_1
    elif marker == _APP14 and content.startswith(b"Adobe") and len(content) >= 12:
        content = content[:11] + bytes([content[11] and (2 if components == 4 else 1)])
    elif (_APP0 <= marker <= _APP15 and not content.startswith(b"Exif")) or marker == _COM:
        return b""
    return segment(marker, content)
