"""Landmarks of benchmark images: the reference's CSV files, any table of ours, SCface's own four-point file."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.errors import ProtocolError
from benchmarks.prepare import Point
from pipeline.landmarks import LandmarkError, read_landmarks

_UNKNOWN = ((float("nan"), float("nan")),) * 5  # no landmarks: the image is listed as one that cannot be prepared
_SUFFIX = re.compile(r"\.(jpe?g|png|bmp|webp)$", re.I)
_FOUR_POINTS = 8  # numbers a line


@dataclasses.dataclass(frozen=True, kw_only=True)
class PointTable:
    """Landmarks by file name.

    Attributes:
        rows: name without folder and extension, lower case -> landmarks, px.
        source: the files they come from.
    """

    rows: dict[str, tuple[Point, ...]]
    source: str

    def of(self, path: Path) -> tuple[Point, ...]:
        """The points of an image; not-a-number where the table has none."""
        return self.rows.get(path.stem.lower(), _UNKNOWN)


def read_points(paths: Sequence[Path]) -> PointTable:
    """Reads landmark tables: CSV with or without a header, Parquet with columns key and landmarks, or four-point text.

    Raises:
        ProtocolError: a file is not there or is none of these.
    """
    rows: dict[str, tuple[Point, ...]] = {}
    for path in paths:
        if path.suffix.lower() == ".parquet":
            rows |= _parquet(path)
        else:
            rows |= four_points(path) or _csv(path)
    return PointTable(rows=rows, source=", ".join(map(str, paths)))


def _csv(path: Path) -> dict[str, tuple[Point, ...]]:
    try:
        table = read_landmarks([path])
    except LandmarkError as error:
        raise ProtocolError(str(error)) from None
    return _by_name(table.keys.to_pylist(), table.points)


def _parquet(path: Path) -> dict[str, tuple[Point, ...]]:
    try:
        table = pq.read_table(path, columns=["key", "landmarks"]).drop_null()
    except (OSError, pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise ProtocolError(
            f"{path}: not a table with columns key and landmarks ({str(error).splitlines()[0][:80]})"
        ) from None
    return _by_name(table["key"].to_pylist(), np.array(table["landmarks"].to_pylist(), np.float64).reshape(-1, 10))


def _by_name(keys: list[str], points: np.ndarray) -> dict[str, tuple[Point, ...]]:
    pairs = points.astype(float).reshape(len(keys), -1, 2).tolist()
    return {_name(key): tuple((x, y) for x, y in row) for key, row in zip(keys, pairs, strict=True)}


def _name(key: str) -> str:
    return _SUFFIX.sub("", re.split(r"[/\\]", key.strip().strip('"'))[-1]).lower()


def four_points(path: Path) -> dict[str, tuple[Point, ...]]:
    """Lines of a name and eight numbers, x and y of left eye, right eye, nose, mouth centre; empty if it has none.

    Names may come without extension and folder; numbers are parted by blanks, tabs, commas or semicolons; other
    lines, such as a heading, are passed over.
    """
    rows = {}
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise ProtocolError(f"{path}: {error.strerror}; expected a table of landmarks") from None
    for line in lines:
        name, *fields = [field for field in re.split(r"[\s,;]+", line.strip()) if field] or [""]
        if len(fields) == _FOUR_POINTS:
            try:
                values = [float(field) for field in fields]
            except ValueError:
                continue
            rows[_name(name)] = tuple(zip(values[::2], values[1::2], strict=True))
    return rows
