"""Checks the coded data of JPEGs whose sampling factors simplejpeg does not know, such as 4:1:0.

OpenCV and Pillow read them, but do not report damage. This takes about a second for 1 MB of data.

Source: ITU-T T.81: A.2 (order of the blocks), B.2 (segments), C (Huffman tables), F.2.2 and G.1.2.1 (decoding).
"""

from __future__ import annotations

import dataclasses
import functools
import re

import numpy as np
import simplejpeg

from pipeline.images.jpeg import BASELINE, DHT, DQT, DRI, END, EOI, EXTENDED, PROGRESSIVE, SOS, START, segment

_RESTART = re.compile(rb"(?<!\xff)\xff++[\xd0-\xd7]")  # in linear time, whatever the length of filler
_SCAN_END = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_BLOCK = 64  # coefficients
_Codes = list[tuple[int, int]]  # by the next 16 bits: bits that a symbol and its value take, coefficients that it sets
_Tables = dict[int, _Codes]  # 0x00 + n: DC table n; 0x10 + n: AC table n


@dataclasses.dataclass
class _State:
    """What the segments so far state.

    Attributes:
        factors: component -> (horizontal, vertical) sampling factor.
        restart_interval: MCUs; 0: no restart markers.
        grey: for each component of a progressive JPEG the segments and scans of its AC coefficients.
        is_complete: the bytes of ``rest`` are no part of the last scan.
    """

    codes: _Tables
    rest: bytes
    height: int = 0
    width: int = 0
    factors: dict[int, tuple[int, int]] = dataclasses.field(default_factory=dict)
    restart_interval: int = 0
    grey: dict[int, list[bytes]] = dataclasses.field(default_factory=dict)
    is_complete: bool = False

    def sides(self, component: int) -> tuple[int, int]:
        """(width, height) of a component in samples."""
        most = [max(factors) for factors in zip(*self.factors.values(), strict=True)]
        across, down = self.factors[component]
        return -(-self.width * across // most[0]), -(-self.height * down // most[1])


def check_scans(data: bytes, rest: bytes = b"") -> bool:
    """Decodes all scans of a JPEG without any odd segment, and forgets the values.

    Args:
        rest: a few bytes that were found after the last scan.

    Returns:
        False if ``rest`` may be a part of the last scan, which was shifted: no ones fill up the byte before it, as encoders
        write them, or it can be decoded. Not for a progressive JPEG.

    Raises:
        ValueError: the data is damaged, in the words of libjpeg, or is neither baseline nor progressive.
    """
    try:
        state = _read_segments(data, rest)
    except (IndexError, KeyError):
        raise ValueError("Corrupt JPEG data: a segment is cut, or a table or component is missing") from None
    for component in state.grey:
        simplejpeg.decode_jpeg(_grey_jpeg(component, state), "GRAY")
    return state.is_complete


def _read_segments(data: bytes, rest: bytes) -> _State:
    """Checks all scans but those of AC coefficients of a progressive JPEG."""
    state, at = _State(dict(_standard_codes()), rest), len(START)
    while (marker := data[at + 1]) != EOI:
        end = at + 2 + (data[at + 2] << 8 | data[at + 3])
        content = data[at + 4 : end]
        if marker in (BASELINE, EXTENDED, PROGRESSIVE):
            state.height, state.width = content[1] << 8 | content[2], content[3] << 8 | content[4]
            state.factors = {content[i]: (content[i + 1] >> 4, content[i + 1] & 15) for i in range(6, len(content), 3)}
            state.grey = {component: [] for component in state.factors if marker == PROGRESSIVE}
        elif marker in (DHT, DRI):
            if marker == DHT:
                _read_tables(content, state.codes)
            else:
                state.restart_interval = content[0] << 8 | content[1]
            for parts in state.grey.values():
                parts.append(data[at:end])
        elif marker == SOS:
            found = _SCAN_END.search(data, end)
            start, end = end, found.start() if found else len(data)
            if state.grey and content[-3]:
                state.grey[content[1]].append(data[at:end])
            else:
                _check_scan(data[start:end], content, state, data[end + 1])
        at = end
    return state


@functools.cache
def _standard_codes() -> _Tables:
    """The tables of a JPEG that has none, as a frame of a Motion JPEG: those that encoders take by default."""
    tables: _Tables = {}
    data = simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8))
    for found in re.finditer(b"\xff\xc4(..)", data, re.DOTALL):
        _read_tables(data[found.end() : found.start() + 2 + int.from_bytes(found[1])], tables)
    return tables


def _read_tables(content: bytes, codes: _Tables) -> None:
    while content:
        counts, first = content[1:17], 17
        table: _Codes = []
        for bits, count in enumerate(counts, 1):
            for symbol in content[first : first + count]:
                table += [_cost(symbol, bits, is_dc=content[0] < 0x10)] * (1 << 16 - bits)
            first += count
        codes[content[0]] = table
        content = content[first:]


def _cost(symbol: int, bits: int, is_dc: bool) -> tuple[int, int]:
    """Bits of a code of ``bits`` and its value, and coefficients that they set."""
    if is_dc:
        return bits + symbol, 1
    run, size = symbol >> 4, symbol & 15
    return bits + size, run + 1 if size or run == 15 else _BLOCK


def _check_scan(data: bytes, header: bytes, state: _State, next_marker: int) -> None:
    """Checks one scan of all coefficients, or one of DC coefficients of a progressive JPEG.

    Args:
        header: content of its SOS segment.
    """
    if not state.factors:
        raise ValueError("unusual sampling factors in a JPEG with arithmetic codes, which cannot be checked")
    parts = [(header[1 + 2 * i], header[2 + 2 * i]) for i in range(header[0])]
    if len(parts) == 1:  # an MCU is one block
        (width, height), sampling = state.sides(parts[0][0]), [(1, 1)]
        units = -(-width // 8) * -(-height // 8)
    else:
        most = [max(factors) for factors in zip(*state.factors.values(), strict=True)]
        sampling = [state.factors[component] for component, _ in parts]
        units = -(-state.width // (8 * most[0])) * -(-state.height // (8 * most[1]))
    blocks = [
        _codes_of_block(tables, header[-1] >> 4, state)
        for (_, tables), (across, down) in zip(parts, sampling, strict=True)
        for _ in range(across * down)
    ]
    interval = state.restart_interval or units
    numbers = [found[0][-1] for found in _RESTART.finditer(data)]
    if numbers != [0xD0 + number % 8 for number in range(-(-units // interval) - 1)]:
        raise ValueError("Corrupt JPEG data: restart markers are missing or out of order")
    for number, part in enumerate(_RESTART.split(data)):
        part = part.replace(b"\xff\0", b"\xff")
        used = _check_interval(part, blocks, min(interval, units - number * interval))
        spare = 8 * len(part) - used  # bits
        if spare >= 8:
            marker = numbers[number] if number < len(numbers) else next_marker
            raise ValueError(f"Corrupt JPEG data: {spare // 8} extraneous bytes before marker 0x{marker:02x}")
    following = part[-1:] + state.rest.replace(b"\xff\0", b"\xff")
    state.is_complete = _is_filled_up(part, used) and not _goes_on(following, 8 - spare, blocks)


def _codes_of_block(tables: int, refined: int, state: _State) -> tuple[_Codes, _Codes | None]:
    """DC and AC codes of a block; no AC codes in a scan of DC coefficients, and single bits where these are refined."""
    if not state.grey:
        return state.codes[tables >> 4], state.codes[0x10 + (tables & 15)]
    return [(1, 1)] * (1 << 16) if refined else state.codes[tables >> 4], None


def _is_filled_up(data: bytes, used: int) -> bool:
    """Returns True if all but the first ``used`` bits, of the last byte, are ones."""
    return not data or (data[-1] + 1) % (1 << 8 * len(data) - used) == 0


def _goes_on(data: bytes, at: int, blocks: list[tuple[_Codes, _Codes | None]]) -> bool:
    """Returns True if the bits from ``at`` on are MCUs, and fill up all bytes."""
    try:
        while at <= 8 * len(data) - 8:
            at = _check_interval(data, blocks, 1, at)
    except ValueError:
        return False
    return _is_filled_up(data, at)


def _check_interval(data: bytes, blocks: list[tuple[_Codes, _Codes | None]], units: int, at: int = 0) -> int:
    """Decodes ``units`` MCUs from bit ``at`` on, and returns the bit after them."""
    padded = np.frombuffer(data + b"\0\0\0", np.uint8).astype(np.uint32)
    windows = (padded[:-2] << 16 | padded[1:-1] << 8 | padded[2:]).tolist()  # 24 bits from each byte on
    try:
        for _ in range(units):
            for dc, ac in blocks:
                at += dc[windows[at >> 3] >> 8 - (at & 7) & 0xFFFF][0]
                coefficient = 1
                while ac and coefficient < _BLOCK:
                    bits, step = ac[windows[at >> 3] >> 8 - (at & 7) & 0xFFFF]
                    at += bits
                    coefficient += step
    except IndexError:
        past_end = at >> 3 >= len(windows)
        reason = "premature end of data segment" if past_end else "bad Huffman code"
        raise ValueError(f"Corrupt JPEG data: {reason}") from None
    if at > 8 * len(data):
        raise ValueError("Corrupt JPEG data: premature end of data segment")
    return at


def _grey_jpeg(component: int, state: _State) -> bytes:
    """A progressive JPEG of one component: DC coefficients of zero, of one bit each, and its own AC coefficients."""
    width, height = state.sides(component)
    blocks = -(-width // 8) * -(-height // 8)
    frame = b"\x08" + height.to_bytes(2) + width.to_bytes(2) + bytes([1, component, 0x11, 0])
    return b"".join(
        (
            START,
            segment(DQT, b"\0" + b"\1" * _BLOCK),
            segment(PROGRESSIVE, frame),
            segment(DHT, b"\0\1" + b"\0" * 16),
            segment(SOS, bytes([1, component, 0, 0, 0, 0])),
            b"\0" * (blocks // 8) + (bytes([0xFF >> blocks % 8]) if blocks % 8 else b""),
            *state.grey[component],
            END,
        )
    )
