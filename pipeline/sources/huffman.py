"""Checks the entropy-coded data of baseline JPEGs whose sampling factors simplejpeg does not know, such as 4:1:0.

OpenCV and Pillow read them, but tell nobody about damage. This takes about a second for 1 MB of data.

Source: ITU-T T.81: B.2 (segments), C (Huffman tables), F.2.2 (decoding), A.2 (order of the blocks).
"""

from __future__ import annotations

import dataclasses
import functools
import re

import numpy as np
import simplejpeg

_SOF0, _SOF1, _DHT, _EOI, _SOS, _DRI = 0xC0, 0xC1, 0xC4, 0xD9, 0xDA, 0xDD
_RESTART = re.compile(rb"\xff+[\xd0-\xd7]")
_SCAN_END = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_BLOCK = 64  # coefficients
_Codes = list[tuple[int, int]]  # by the next 16 bits: bits that a symbol and its value take, coefficients that it sets
_Tables = dict[int, _Codes]  # 0x00 + n: DC table n; 0x10 + n: AC table n


@dataclasses.dataclass
class _State:
    """What the segments so far state."""

    codes: _Tables
    height: int = 0
    width: int = 0
    factors: dict[int, tuple[int, int]] = dataclasses.field(default_factory=dict)  # component -> (horizontal, vertical)
    restart_interval: int = 0  # MCUs; 0: none


def check_scans(data: bytes) -> None:
    """Decodes all scans of a JPEG without any odd segment, and forgets the values.

    Raises:
        ValueError: the data is damaged, in the words of libjpeg, or not baseline.
    """
    state, at = _State(dict(_standard_codes())), 2
    while (marker := data[at + 1]) != _EOI:
        end = at + 2 + (data[at + 2] << 8 | data[at + 3])
        content = data[at + 4 : end]
        if marker in (_SOF0, _SOF1):
            state.height, state.width = content[1] << 8 | content[2], content[3] << 8 | content[4]
            state.factors = {content[i]: (content[i + 1] >> 4, content[i + 1] & 15) for i in range(6, len(content), 3)}
        elif marker == _DHT:
            _read_tables(content, state.codes)
        elif marker == _DRI:
            state.restart_interval = content[0] << 8 | content[1]
        elif marker == _SOS:
            if not state.factors:
                raise ValueError("unusual sampling factors in a JPEG that is not baseline, which cannot be checked")
            found = _SCAN_END.search(data, end)
            at, end = end, found.start() if found else len(data)
            _check_scan(data[at:end], content, state, data[end + 1])
        at = end


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
    """Checks one scan.

    Args:
        header: content of its SOS segment.
    """
    parts = [(header[1 + 2 * i], header[2 + 2 * i]) for i in range(header[0])]
    most = [max(factors) for factors in zip(*state.factors.values(), strict=True)]
    sampling = [state.factors[component] for component, _ in parts]
    sides = [state.width, state.height]
    if len(parts) == 1:  # an MCU is one block
        sides = [-(-side * own // top) for side, own, top in zip(sides, sampling[0], most, strict=True)]
        sampling, most = [(1, 1)], [1, 1]
    units = -(-sides[0] // (8 * most[0])) * -(-sides[1] // (8 * most[1]))
    blocks = [
        (state.codes[tables >> 4], state.codes[0x10 + (tables & 15)])
        for (_, tables), (horizontal, vertical) in zip(parts, sampling, strict=True)
        for _ in range(horizontal * vertical)
    ]
    interval = state.restart_interval or units
    intervals = _RESTART.split(data)
    numbers = [found[0][-1] for found in _RESTART.finditer(data)]
    if numbers != [0xD0 + number % 8 for number in range(-(-units // interval) - 1)]:
        raise ValueError("Corrupt JPEG data: restart markers are missing or out of order")
    for number, part in enumerate(intervals):
        extra = _check_interval(part.replace(b"\xff\0", b"\xff"), blocks, min(interval, units - number * interval))
        if extra:
            last = number == len(intervals) - 1
            marker = next_marker if last else 0xD0 + number % 8
            raise ValueError(f"Corrupt JPEG data: {extra} extraneous bytes before marker 0x{marker:02x}")


def _check_interval(data: bytes, blocks: list[tuple[_Codes, _Codes]], units: int) -> int:
    """Decodes ``units`` MCUs and returns the number of whole bytes that are left."""
    padded = np.frombuffer(data + b"\0\0\0", np.uint8).astype(np.uint32)
    windows = (padded[:-2] << 16 | padded[1:-1] << 8 | padded[2:]).tolist()  # 24 bits from each byte on
    at = 0
    try:
        for _ in range(units):
            for dc, ac in blocks:
                at += dc[windows[at >> 3] >> 8 - (at & 7) & 0xFFFF][0]
                coefficient = 1
                while coefficient < _BLOCK:
                    bits, step = ac[windows[at >> 3] >> 8 - (at & 7) & 0xFFFF]
                    at += bits
                    coefficient += step
    except IndexError:
        past_end = at >> 3 >= len(windows)
        reason = "premature end of data segment" if past_end else "bad Huffman code"
        raise ValueError(f"Corrupt JPEG data: {reason}") from None
    if at > 8 * len(data):
        raise ValueError("Corrupt JPEG data: premature end of data segment")
    return len(data) - (at + 7) // 8
