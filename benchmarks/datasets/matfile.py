"""Reads numbers, text and cell arrays of MATLAB 5 files.

Every size and type in the file is checked before it is used. ``scipy.io.loadmat`` trusts them: one changed byte can
crash the process.

Source: MathWorks, MAT-File Format, 2024, chapter "Level 5 MAT-File Format".
"""

from __future__ import annotations

import math
import struct
import zlib

import numpy as np

MAX_UNPACKED_BYTES = 1 << 26  # of a compressed variable; the longest list of the benchmarks takes 8 MB
MAX_CELLS = 1 << 20
MAX_NESTING = 4  # cells within cells
HEADER_BYTES = 128
_NAME_BYTES = 1024  # the start of a variable, with its name
_MATRIX, _COMPRESSED = 14, 15  # types of elements
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}  # by type
_CHARACTERS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}  # by type
_CELL, _CHAR = 1, 4  # classes of arrays
_NUMERIC = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}  # by class
_COMPLEX = 0x800  # flag


class MatError(Exception):
    """A file that is damaged or not of MATLAB 5, or a variable of another kind."""


class MatFile:
    """The variables of a MATLAB 5 file.

    Args:
        data: the content of the file.

    Raises:
        MatError: damaged, or not a MATLAB 5 file.
    """

    def __init__(self, data: bytes) -> None:
        self._order = {b"IM": "<", b"MI": ">"}.get(data[126:HEADER_BYTES])
        if self._order is None or self._unpack("H", data, 124)[0] != 0x100:
            raise MatError("no header of MATLAB 5")
        self._variables: dict[str, tuple[int, memoryview]] = {}
        view, position = memoryview(data), HEADER_BYTES
        while position < len(view):
            kind, content, position = self._element(view, position)
            if kind in (_MATRIX, _COMPRESSED):
                start = content if kind == _MATRIX else _unpacked(content, _NAME_BYTES)[8:]
                self._variables.setdefault(self._header(start)[3], (kind, content))

    @property
    def names(self) -> list[str]:
        """The names of the variables."""
        return list(self._variables)

    def read(self, name: str) -> np.ndarray:
        """Reads a variable: an array of numbers, or an object array of cells. Text in a cell is ``str``.

        Raises:
            MatError: damaged, or a variable of another kind.
        """
        kind, content = self._variables[name]
        if kind == _COMPRESSED:
            kind, content, _ = self._element(_unpacked(content, MAX_UNPACKED_BYTES, whole=True), 0)
        if kind != _MATRIX:
            raise MatError(f"element of type {kind}")
        return np.asarray(self._array(content))

    def _unpack(self, formats: str, data: bytes | memoryview, position: int) -> tuple[int, ...]:
        try:
            return struct.unpack_from(f"{self._order}{formats}", data, position)
        except struct.error:
            raise MatError("truncated") from None

    def _element(self, data: memoryview, position: int) -> tuple[int, memoryview, int]:
        """Type and content of the element at ``position``, and the position of the next one."""
        kind, size = self._unpack("II", data, position)
        start = position + 8
        if kind >> 16:  # up to 4 bytes are packed into the tag
            kind, size, start = kind & 0xFFFF, kind >> 16, position + 4
            if size > 4:
                raise MatError(f"small element of {size} bytes")
        if size > len(data) - start:
            raise MatError("truncated")
        end = start + size if kind == _COMPRESSED else start + size + -(start + size - position) % 8
        return kind, data[start : start + size], end

    def _header(self, content: memoryview) -> tuple[int, int, tuple[int, ...], str, int]:
        """Class, flags, shape and name of an array, and the position of its data."""
        _, flags, position = self._element(content, 0)
        kind, dimensions, position = self._element(content, position)
        if kind != 5 or not 8 <= len(dimensions) <= 32:
            raise MatError("invalid dimensions")
        shape = self._unpack(f"{len(dimensions) // 4}i", dimensions, 0)
        if min(shape) < 0:
            raise MatError("negative dimensions")
        _, name, position = self._element(content, position)
        (word,) = self._unpack("I", flags, 0)
        return word & 0xFF, word & ~0xFF, shape, bytes(name).decode("latin-1"), position

    def _array(self, content: memoryview, nesting: int = 0) -> np.ndarray | str:
        if not content:  # an empty cell
            return np.empty(0)
        kind, flags, shape, _, position = self._header(content)
        if kind == _CELL:
            return self._cells(content, position, shape, nesting)
        stored, data, _ = self._element(content, position)
        if kind == _CHAR:
            return self._text(stored, data, shape)
        if kind not in _NUMERIC or stored not in _NUMBERS or flags & _COMPLEX:
            raise MatError(f"array of class {kind}")
        numbers = np.dtype(f"{self._order}{_NUMBERS[stored]}")
        if math.prod(shape) * numbers.itemsize != len(data):
            raise MatError(f"{len(data)} bytes, expected an array of shape {shape}")
        return np.frombuffer(data, numbers).astype(_NUMERIC[kind]).reshape(shape, order="F")

    def _cells(self, content: memoryview, position: int, shape: tuple[int, ...], nesting: int) -> np.ndarray:
        count = math.prod(shape)
        if count > min(MAX_CELLS, (len(content) - position) // 8) or nesting > MAX_NESTING:
            raise MatError(f"{count} cells")
        cells = np.empty(count, object)
        for index in range(count):
            kind, cell, position = self._element(content, position)
            if kind != _MATRIX:
                raise MatError(f"cell of type {kind}")
            cells[index] = self._array(cell, nesting + 1)
        if position < len(content):
            raise MatError(f"more than the {count} cells that it states")
        return cells.reshape(shape, order="F")

    def _text(self, stored: int, data: memoryview, shape: tuple[int, ...]) -> str:
        codec = _CHARACTERS.get(stored)
        if codec is None or (shape[0] != 1 and 0 not in shape):
            raise MatError(f"text of type {stored} and shape {shape}")
        if codec in ("utf-16", "utf-32"):
            codec += "-le" if self._order == "<" else "-be"
        try:
            return bytes(data).decode(codec)
        except UnicodeDecodeError:
            raise MatError("text that is not Unicode") from None


def _unpacked(data: memoryview, limit: int, whole: bool = False) -> memoryview:
    """Decompresses up to ``limit`` bytes. Raises: MatError: damaged, or ``whole`` is set and there are more."""
    inflate = zlib.decompressobj()
    try:
        found = inflate.decompress(data, limit)
    except zlib.error as error:
        raise MatError(str(error)) from None
    if whole and not inflate.eof:
        raise MatError(f"truncated, or more than {limit:,} bytes")
    return memoryview(found)
