"""MXNet's RecordIO format, read without MXNet.

A record is a word of magic, a word of kind (3 bits) and length (29 bits), and its payload, padded to whole words. Words of
the payload that equal the magic are left out: the payload is cut there into parts, each with a head of its own. The payload
is a header of 24 bytes, 4 bytes for each of ``flag`` labels, and the content of an image file.

Source: dmlc-core's recordio.h and MXNet's recordio.py.
"""

from __future__ import annotations

import array
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.images.decode import ImageError, check_bytes
from shards.files import regular_handle

MAGIC = struct.pack("<I", 0xCED7230A)
WHOLE, FIRST, MIDDLE, LAST = range(4)  # kinds of parts
LENGTH_BITS = 29
LENGTH_MASK = (1 << LENGTH_BITS) - 1
HEADER_BYTES = 24  # flag uint32, label float32, two ids uint64
MAX_PARTS = 1024  # of a record: in an image, one word in 4 billion is the magic
_HEAD = struct.Struct("<4sI")
_AT_ONCE = 1 << 14  # most crops of 112 px are smaller
_BLOCK_BYTES = 1 << 22

# the first bytes of a record: head, header and two labels
START = np.dtype(
    [
        ("magic", "S4"),
        ("word", "<u4"),
        ("flag", "<u4"),
        ("label", "<f4"),
        ("ids", "<u8", 2),
        ("labels", "<f4", 2),
    ]
)


class RecordFile:
    """An open ``.rec`` file."""

    def __init__(self, path: Path) -> None:
        """Raises: OSError: it cannot be opened, or is not a regular file."""
        self.name, self._path = path.name, path
        self._handle = regular_handle(path)
        self.size = os.fstat(self._handle).st_size

    def close(self) -> None:
        """Closes the file."""
        os.close(self._handle)

    def _read(self, count: int, offset: int) -> bytes:
        try:
            return os.pread(self._handle, count, offset)
        except OSError as error:
            error.filename = str(self._path)
            raise

    def payload(self, offset: int, max_bytes: int | None = None) -> bytes:
        """Returns the payload of the record at ``offset``.

        Raises:
            ImageError: there is no whole record, or it has more than ``max_bytes``.
            OSError: it cannot be read.
        """
        parts: list[bytes] = []
        total, at = 0, offset
        block, begin = self._read(_AT_ONCE, at), at
        while True:
            if at + _HEAD.size > begin + len(block):
                block, begin = self._read(_AT_ONCE, at), at
            magic, word = _HEAD.unpack_from(block, at - begin) if len(block) >= at - begin + _HEAD.size else (b"", 0)
            kind, length = word >> LENGTH_BITS, word & LENGTH_MASK
            if magic != MAGIC or kind not in ((MIDDLE, LAST) if parts else (WHOLE, FIRST)):
                raise ImageError(f"no record at byte {at:,} of {self.name}" + (", where one goes on" if parts else ""))
            total += length
            check_bytes(total, max_bytes, "the record")
            if at + _HEAD.size + length > self.size:
                raise ImageError(f"the record at byte {at:,} of {self.name} is cut, at the end of the file")
            at += _HEAD.size
            parts.append(self._completed(block[at - begin : at - begin + length], at, length))
            if kind in (WHOLE, LAST):
                return MAGIC.join(parts)
            if len(parts) == MAX_PARTS:
                raise ImageError(f"the record at byte {offset:,} of {self.name} has more than {MAX_PARTS} parts")
            at += padded(length)

    def _completed(self, data: bytes, at: int, length: int) -> bytes:
        """Returns ``length`` bytes from offset ``at`` on, of which the first have been read."""
        while len(data) < length:
            more = self._read(length - len(data), at + len(data))
            if not more:
                raise ImageError(f"the record before byte {at:,} of {self.name} is cut: the file has become shorter")
            data += more
        return data

    def starts(self, offsets: np.ndarray) -> np.ndarray:
        """Returns the (N,) ``START`` of the records at (N,) offsets, zeros beyond the end of the file."""
        order = np.argsort(offsets, kind="stable")
        found = np.zeros(len(offsets), START)
        for first, last, block, begin in self._blocks(offsets[order]):
            views = np.lib.stride_tricks.sliding_window_view(block, START.itemsize)
            rows = order[first:last]
            found[rows] = np.ascontiguousarray(views[offsets[rows] - begin]).view(START)[:, 0]
        return found

    def _blocks(self, offsets: np.ndarray) -> Iterator[tuple[int, int, np.ndarray, int]]:
        """Reads sorted offsets a block at a time: first and last of them (exclusive), the block, and where it begins."""
        first = 0
        while first < len(offsets):
            begin = int(offsets[first])
            last = int(np.searchsorted(offsets, begin + _BLOCK_BYTES))
            wanted = int(offsets[last - 1]) - begin + START.itemsize
            block = self._read(wanted, begin)
            yield first, last, np.frombuffer(block.ljust(wanted, b"\0"), np.uint8), begin
            first = last

    def walk(self) -> tuple[np.ndarray, int]:
        """Finds all records from the first one on.

        Returns:
            (N,) int64 offsets.
            Where the walk ended: the size of the file, or the offset of what is not a whole record.
        """
        found = array.array("q")
        at = 0
        begin, block = 0, b""
        while at < self.size:
            if at + _HEAD.size > begin + len(block):
                begin, block = at, self._read(_BLOCK_BYTES, at)
            if at + _HEAD.size > begin + len(block):
                break
            magic, word = _HEAD.unpack_from(block, at - begin)
            end = at + _HEAD.size + padded(word & LENGTH_MASK)
            if magic != MAGIC or word >> LENGTH_BITS > LAST or end > self.size + 3:
                break
            if word >> LENGTH_BITS in (WHOLE, FIRST):
                found.append(at)
            at = end
        return np.frombuffer(found, np.int64), min(at, self.size)


def padded(length: int) -> int:
    """Rounds a length up to whole words."""
    return length + 3 & ~3
