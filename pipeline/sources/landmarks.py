"""Landmark tables: five points per face, in the order of the files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.sources.finder import IMAGE_SUFFIXES
from shards.errors import LrfrError

POINT_NAMES = [f"P{point}{axis}" for point in range(1, 6) for axis in "XY"]
HEADER = ["NAME_ID", *POINT_NAMES]

Point = tuple[float, float]


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
    """One landmark file: its path, its number of rows, and the numbers per row (10, or 8 for four points)."""

    path: Path
    rows: int
    numbers: int = len(POINT_NAMES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LandmarkTable:
    """Rows of one or several landmark files, in file order.

    Attributes:
        keys: (N,) ``identity/image``, without extension and without a ``train/`` or ``test/`` prefix.
        points: (N, 10) float32, x and y of left eye, right eye, nose, left and right mouth corner (as seen by
            the viewer), px. NaN or infinite where the file has no finite number. Rows of a four-point file hold
            the mouth centre in place of the left corner, and NaN in the last two columns.
        problems: row -> first number that is missing or not finite.
        files: the files that the rows come from.
    """

    keys: pa.StringArray
    points: np.ndarray
    problems: dict[int, str]
    files: list[TableFile]

    def landmarks(self, row: int) -> Landmarks:
        """Returns the landmarks of one row, and its file and row number."""
        file, number = self._file(row)
        points = self.points[row, : file.numbers].astype(float).reshape(-1, 2).tolist()
        return Landmarks(points=tuple((x, y) for x, y in points), place=f"{file.path.name} row {number + 1}")

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
    """Turns file names into keys: strips white space, image extension and a ``train/`` or ``test/`` prefix."""
    suffixes = "|".join(suffix[1:] for suffix in IMAGE_SUFFIXES)
    keys = pc.utf8_trim_whitespace(column)
    keys = pc.replace_substring_regex(keys, rf"(?i)\.({suffixes})$", "")
    return pc.replace_substring_regex(keys, r"^(?:train|test)/([^/]+/)", r"\1")
