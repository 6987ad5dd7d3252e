"""Whether a JPEG lost pixels, of which libjpeg does not always warn.

libjpeg reads damaged files without an error: it warns, and fills or shifts what it could not decode. It also warns of
files that lost nothing, such as those of cameras with odd headers. Only its last warning reaches Python, so that a
harmless one can hide a serious one. A file with a warning is therefore copied without anything that may be odd and yet
harmless, and decoded again: any warning of the copy is about its pixels.

Source: ITU-T T.81 (scan header, B.2.3), and libjpeg-turbo's jerror.h.
"""

from __future__ import annotations

import re

import simplejpeg

from pipeline.images.huffman import check_scans
from pipeline.images.jpeg import CUT, END, EOI, PROGRESSIVE, SOS, Header, has_end, next_marker, plain_copy, read_header

_PROBE, _PIXELS_PER_ZERO = b"\xaa" * 12, 1 << 12  # bytes after zeros, of which an encoder leaves out those at the end
_FILLER_WARNING = re.compile(r"(\d+) extraneous bytes before marker 0xd9$")
_LINE_FEEDS = 3  # 256 ** 3 sound files to one that is taken for a copy in text mode
_FEW_BYTES = 16  # of filler that is not uniform
_MANY_EQUAL = 4  # bytes that a coded image hardly ends with
_PIXELS_PER_BYTE = 64 * 8  # a Huffman code takes at least one bit for each block of 8 x 8 px
_ARITHMETIC_PIXELS_PER_BYTE = 1 << 17  # no encoder reaches it; there is no bound
_MAX_TRIALS = 4  # libjpeg does not count the filler that it has read ahead: what is left shows when the rest is cut


def check(data: bytes) -> Header:
    """Reads the header and does all checks of this module, for a JPEG in another file, such as a strip of a TIFF.

    Its EOI marker may be missing.

    Raises:
        ValueError: pixels are lost, or may be.
    """
    header = read_header(data)
    data = data if has_end(data, header) else data + END
    check_length(data, header)
    check_complete(data, header)
    if not _is_sound(data):
        repaired(data, header)
    return header


def check_length(data: bytes, header: Header) -> None:
    """Checks that the file can hold the image that it states, before memory is allocated for it.

    Raises:
        ValueError: it is too short.
    """
    most = _ARITHMETIC_PIXELS_PER_BYTE if header.is_arithmetic else _PIXELS_PER_BYTE
    if header.height * header.width > most * len(data):
        raise ValueError(f"too short for the {header.width}x{header.height} px that it states")


def check_complete(data: bytes, header: Header) -> None:
    """Checks that no later scan is lost: libjpeg decodes what is there, without a warning.

    Raises:
        ValueError: a component has no scan, or coefficients or bits of them are missing.
    """
    if header.frame != PROGRESSIVE and data[header.scan + 4] == header.components:
        return  # one scan
    missing_bits: dict[int, bytearray] = {}  # of the 64 coefficients of each component that has a DC scan; at first all
    at = header.scan
    try:
        while data[at + 1] != EOI:
            if data[at + 1] == SOS:
                end = at + 5 + 2 * data[at + 4]
                first, last, bits = data[end : end + 3] if header.frame == PROGRESSIVE else (0, 63, 0)
                for component in data[at + 5 : end : 2]:
                    if first == 0:
                        missing_bits.setdefault(component, bytearray(b"\1" * 64))
                    if component in missing_bits:
                        missing_bits[component][first : last + 1] = bytes([bits & 15]) * (last + 1 - first)
            at = next_marker(data, at + 2 + (data[at + 2] << 8 | data[at + 3]))
    except IndexError:
        raise ValueError(CUT) from None
    if len(missing_bits) < header.components or any(map(any, missing_bits.values())):
        raise ValueError("scans are missing")


def check_arithmetic(data: bytes, header: Header) -> None:
    """Checks that no scan of arithmetic codes is cut: libjpeg takes zeros for what is missing, without a warning.

    A few bytes more before the end are then data, not filler of which it warns.

    Raises:
        ValueError: the scan is cut.
    """
    end = data.find(END, header.scan)
    zeros = bytes(4 + header.width * header.height // _PIXELS_PER_ZERO)
    try:
        simplejpeg.decode_jpeg(data[:end] + zeros + _PROBE + END, "GRAY")
    except ValueError as error:
        found = _FILLER_WARNING.search(str(error))
        if found and int(found[1]) >= len(_PROBE):
            return
    raise ValueError("Corrupt JPEG data: premature end of data segment")


def passed_text_mode(data: bytes, scan: int) -> bool:
    """Returns True if the last line feeds of the scans follow carriage returns, as a copy in text mode leaves them.

    In other files one in 256 does. libjpeg often reads such a file without a warning. Where there are only one or two,
    those in the tables have to do so, too (the usual ones have some), and libjpeg has to find sound what was copied.
    """
    end = data.rfind(END, scan)
    for found in range(_LINE_FEEDS):
        end = data.rfind(b"\n", scan, end)
        if end < 0:
            is_copy = found > 0 and data.count(b"\n", 0, scan) == data.count(b"\r\n", 0, scan)
            return is_copy and _is_sound(data.replace(b"\r\n", b"\n"))
        if data[end - 1] != ord("\r"):
            return False
    return True


def repaired(data: bytes, header: Header) -> bytes:
    """Returns a JPEG with the same pixels and rotation, of which libjpeg does not warn.

    Raises:
        ValueError: pixels are lost, or may be; with the warning that says so.
    """
    plain = plain_copy(data, header)
    end = last = len(plain) - len(END)
    for _ in range(_MAX_TRIALS):
        try:
            _check_warnings(plain[:end] + END)
            break
        except ValueError as error:
            found = _FILLER_WARNING.search(str(error))
            if not found:
                raise
            end -= int(found[1])
    else:
        raise ValueError("Corrupt JPEG data: extraneous bytes before marker 0xd9")
    if end < last:
        _check_filler(plain, end, header)
    return plain[:end] + END


def _check_filler(plain: bytes, end: int, header: Header) -> None:
    """Checks the bytes between the last scan and the end marker: they may as well be the rest of a shifted scan.

    Args:
        end: offset at which libjpeg finds the scan complete; up to seven bytes of filler may precede it.
    """
    while not header.is_arithmetic and _is_sound(plain[: end - 1] + END):
        end -= 1
    rest = plain[end : -len(END)]
    if header.is_arithmetic or not _is_filler(rest, plain[:end], header):
        raise ValueError(f"Corrupt JPEG data: {len(rest)} extraneous bytes before marker 0xd9")


def _is_filler(rest: bytes, scans: bytes, header: Header) -> bool:
    if len(set(rest)) == 1 and (rest[0] in (0x00, 0xFF) or len(rest) >= _MANY_EQUAL):
        if scans[-1] != rest[0] or scans.endswith(b"\xff\0"):  # FF 00 is a byte of data
            return True
        if rest[0] or scans[-2] == 0:
            return False  # filler took the place of what the scan lost; one zero may be its own
        rest = rest[:_FEW_BYTES]
    return header.frame != PROGRESSIVE and len(rest) <= _FEW_BYTES and check_scans(scans + END, rest)


def _is_sound(data: bytes) -> bool:
    try:
        _check_warnings(data)
    except ValueError:
        return False
    return True


def _check_warnings(data: bytes) -> None:
    """Raises ValueError with the warning of libjpeg if there is any."""
    try:
        simplejpeg.decode_jpeg(data, "GRAY")
    except ValueError as error:
        if "subsampling" not in str(error):
            raise
        check_scans(data)
