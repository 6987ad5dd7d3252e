"""Landmark tables: five points per face, in the order of the files."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.images.lookup import IMAGE_SUFFIXES
from pipeline.tables.row_values import RowValues
from shards.errors import LrfrError

FIVE_POINT_NUMBERS, FOUR_POINT_NUMBERS = 10, 8
POINT_NAMES = [f"P{point}{axis}" for point in range(1, 6) for axis in "XY"]
HEADER = ["NAME_ID", *POINT_NAMES]

_COUNTED_ROWS = 1 << 20  # of keys whose slashes are counted at a time
_BYTE = "([89a-f][0-9a-f])"  # that is not UTF-8, in hexadecimal
_LAST_TWO = r"(?s)^(?:.*/)?(?:[^/.]|\.[^/.]|\.\.[^/])[^/]*/([^/]+/[^/]+)$"  # below a folder other than ..

Point = tuple[float, float]
# Some consecutive rows of one file: names as in the file; (n, 10) float32, or (n, 8) for four points; row -> problem.
Block = tuple[pa.Array, np.ndarray, dict[int, str]]


class LandmarkError(LrfrError):
    """A landmark table that cannot be read or does not fit its images."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Landmarks:
    """The landmarks of one image.

    Attributes:
        points: px; empty if no table has a row for the image.
        place: table and row of the points, or the tables that were searched.
    """

    points: tuple[Point, ...]
    place: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableFile:
    """One landmark file: its path, number of rows, numbers per row (10, or 8 for four points) and SHA-256."""

    path: Path
    rows: int
    numbers: int = FIVE_POINT_NUMBERS
    sha256: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LandmarkTable:
    """Rows of one or several landmark files, in file order.

    Attributes:
        keys: (N,) paths that end in ``identity/image``, see ``clean_keys``.
        suffixes: (N,) int8 extensions of the names, see ``suffix_codes``; (0,) if only identities were asked for.
        points: (N, 10) float32, x and y of left eye, right eye, nose, left and right mouth corner (as seen by
            the viewer), px. NaN or infinite where the file has no finite number. Rows of a four-point file hold
            the mouth centre in place of the left corner, and NaN in the last two columns.
        problems: row -> first number that is missing or not finite, or that the name is empty.
        files: the files that the rows come from.
    """

    keys: pa.StringArray
    suffixes: np.ndarray
    points: np.ndarray
    problems: RowValues[str]
    files: list[TableFile]

    def landmarks(self, row: int) -> Landmarks:
        """Returns the landmarks of one row, and its file and row number, with the reason if it has no numbers."""
        file, number = self._file(row)
        problem = self.problems.get(row, "")
        problem = f": {problem}" if problem and not problem.startswith(tuple(POINT_NAMES)) else ""
        points = self.points[row, : file.numbers].astype(float).reshape(-1, 2).tolist()
        return Landmarks(points=tuple((x, y) for x, y in points), place=f"{file.path.name} row {number + 1}{problem}")

    def duplicate_of(self, row: int) -> str:
        """Describes a later row with the same key as ``row``."""
        file, number = self._file(row)
        return f"NAME_ID given before, in {file.path.name} row {number + 1}"

    def _file(self, row: int) -> tuple[TableFile, int]:
        """The file of a row, and the row's index within it."""
        for file in self.files:
            if row < file.rows:
                return file, row
            row -= file.rows
        raise IndexError(row)


def clean_keys(column: pa.Array) -> pa.Array:
    r"""Turns file names into keys.

    Strips white space, the image extension, leading ``/`` and ``./``, and a ``train/`` or ``test/`` prefix; backslashes
    become slashes, except those of bytes that are not UTF-8 (``\udcff``).
    """
    suffixes = "|".join(suffix[1:] for suffix in IMAGE_SUFFIXES)
    keys = pc.utf8_trim_whitespace(column)
    if pc.any(pc.match_substring_regex(keys, r"\\|/[./]|^[./]")).as_py():  # seldom, and each pass takes time
        keys = pc.replace_substring_regex(keys, rf"\\udc{_BYTE}", "\0\\1")
        keys = pc.replace_substring(keys, "\\", "/")
        keys = pc.replace_substring_regex(keys, rf"\x00{_BYTE}", r"\\udc\1")
        keys = pc.replace_substring_regex(keys, r"/(?:\.?/)+", "/")
        keys = pc.replace_substring_regex(keys, r"^\.?/", "")
    keys = pc.replace_substring_regex(keys, rf"(?i)\.({suffixes})$", "")
    return pc.replace_substring_regex(keys, r"^(?:train|test)/([^/]+/)", r"\1")


def suffix_codes(names: pa.Array) -> np.ndarray:
    """Returns the (N,) int8 numbers of the names' extensions in ``IMAGE_SUFFIXES``; -1 for names without one."""
    ends = pc.replace_substring_regex(pc.utf8_trim_whitespace(names), r"(?s)^.*(\.[^.]*)$", r"\1")
    codes = pc.index_in(pc.utf8_lower(ends), value_set=pa.array(IMAGE_SUFFIXES)).fill_null(-1)
    return codes.to_numpy(zero_copy_only=False).astype(np.int8)


def valid_keys(paths: pa.Array) -> pa.Array:
    r"""Writes the bytes that are not UTF-8 in the paths of a ``landmarks`` table, ``\xff``, as in keys: ``\udcff``."""
    return pc.replace_substring_regex(paths, rf"\\x{_BYTE}", r"\\udc\1")


def last_two_parts(keys: pa.StringArray) -> pa.StringArray:
    """Drops the folders above the identity, such as those of an absolute path."""
    parts = (keys.slice(start, _COUNTED_ROWS) for start in range(0, len(keys), _COUNTED_ROWS))
    if any(pc.any(pc.greater(pc.count_substring(part, "/"), 1)).as_py() for part in parts):
        return pc.replace_substring_regex(keys, _LAST_TWO, r"\1")
    return keys


def composed_column(names: pa.Array) -> pa.Array:
    """Converts names to Unicode normal form C, in which names that look the same are the same."""
    return names if pc.all(pc.string_is_ascii(names)).as_py() else pc.utf8_normalize(names, "NFC")


def float32(numbers: np.ndarray) -> np.ndarray:
    """Converts to float32; numbers beyond its range become infinite."""
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32)


def not_finite(points: np.ndarray, texts: Sequence[pa.Array] | None = None) -> dict[int, str]:
    """Row -> description of its first number that is missing or not finite; ``texts`` are the columns of a text table."""
    finite = np.isfinite(points)
    problems = {}
    for row in np.flatnonzero(~finite.all(1)).tolist():
        index = int(finite[row].argmin())
        value = texts[index][row].as_py() if texts else points[row, index]
        found = f"is {value!r}, not a finite number" if texts else f"is {value}, not a finite number"
        problems[row] = f"{POINT_NAMES[index]} {'is missing' if texts and not value.strip() else found}"
    return problems
