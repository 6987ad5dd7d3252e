"""Landmarks of benchmark images: the reference's CSV files, any table of ours, SCface's own four-point file."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.sources.landmarks import LandmarkError, read_landmarks

_SUFFIX = re.compile(r"\.(jpe?g|png|bmp|webp)$", re.I)
_PARTED = re.compile(r"\s*[,;]\s*|\s+")
_FOUR_POINTS = 8  # numbers a line

Point = tuple[float, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Landmarks:
    """Of one image.

    Attributes:
        points: px; none where no table has any.
        place: the table and row that they are from, or the tables that have none.
    """

    points: tuple[Point, ...]
    place: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class PointTable:
    """Landmarks by file name.

    Attributes:
        rows: name without folder and extension, lower case -> landmarks.
        source: the files they come from.
    """

    rows: dict[str, Landmarks]
    source: Sequence[Path]

    def of(self, path: Path) -> Landmarks:
        """The landmarks of an image; without points where the table has none."""
        tables = ", ".join(table.name for table in self.source)
        return self.rows.get(path.stem.lower(), Landmarks(points=(), place=tables))

    def expect(self, paths: Sequence[Path], title: str) -> None:
        """Raises: LandmarkError: the table has none of the images ``paths`` of the data set ``title``."""
        if not any(path.stem.lower() in self.rows for path in paths):
            raise LandmarkError(
                f"{', '.join(map(str, self.source))}: has landmarks of none of {title}'s images, such as"
                f" {paths[0].stem}; name their table with --landmarks"
            )


def read_points(paths: Sequence[Path], four_points: bool = False) -> PointTable:
    """Reads landmark tables: CSV with or without a header, Parquet with columns key and landmarks.

    Args:
        four_points: a table may be of lines of a name and eight numbers, x and y of left eye, right eye, nose,
            mouth centre, parted by blanks, tabs, commas or semicolons; lines without numbers are passed over.

    Raises:
        LandmarkError: a file is not there or is none of these, a line has more or fewer numbers, or an image is
            given twice, with different numbers.
    """
    rows: dict[str, Landmarks] = {}
    for path in paths:
        if path.exists() and not path.is_file():
            raise LandmarkError(f"{path}: not a regular file; expected a table of landmarks")
        if path.suffix.lower() == ".parquet":
            found = _parquet(path)
        elif four_points and has_four_points(path):
            found = _four_points(path)
        else:
            found = _csv(path)
        for key, landmarks in found:
            before = rows.setdefault(_name(key), landmarks)
            if not np.array_equal(before.points, landmarks.points, equal_nan=True):
                raise LandmarkError(
                    f"{path}: {key} has other numbers in {landmarks.place} than in {before.place}; keep one of them"
                )
    return PointTable(rows=rows, source=tuple(paths))


def _csv(path: Path) -> Iterator[tuple[str, Landmarks]]:
    table = read_landmarks([path])
    return _rows(path, table.keys.to_pylist(), table.points)


def _parquet(path: Path) -> Iterator[tuple[str, Landmarks]]:
    try:
        table = pq.read_table(path, columns=["key", "landmarks"]).drop_null()
        points = np.array(table["landmarks"].to_pylist(), np.float64).reshape(-1, 10)
    except (OSError, ValueError, pa.ArrowKeyError) as error:
        raise LandmarkError(
            f"{path}: not a table with columns key and landmarks ({str(error).splitlines()[0][:80]})"
        ) from None
    return _rows(path, table["key"].to_pylist(), points)


def has_four_points(path: Path) -> bool:
    """True where most lines with numbers have eight. Raises: LandmarkError: the file cannot be read."""
    counts = [len(numbers) for _, _, numbers in _numbered(path)]
    return counts.count(_FOUR_POINTS) > max(1, len(counts) // 2)


def _four_points(path: Path) -> Iterator[tuple[str, Landmarks]]:
    lines = list(_numbered(path))
    for line, _, numbers in lines:
        if len(numbers) != _FOUR_POINTS:
            raise LandmarkError(
                f"{path}: line {line}: {len(numbers)} numbers, expected {_FOUR_POINTS} as in the others: x and y of"
                " left eye, right eye, nose, mouth centre"
            )
    return _rows(path, [key for _, key, _ in lines], np.array([numbers for _, _, numbers in lines]))


def _numbered(path: Path) -> Iterator[tuple[int, str, list[float]]]:
    """Line, name and numbers of each line of a text that consists of a name and numbers."""
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise LandmarkError(f"{path}: {error.strerror}; expected a table of landmarks") from None
    for number, line in enumerate(lines, 1):
        name, *fields = _PARTED.split(line.strip())
        try:
            numbers = [float(field) for field in fields]
        except ValueError:
            continue
        if numbers:
            yield number, name, numbers


def _rows(path: Path, keys: list[str], points: np.ndarray) -> Iterator[tuple[str, Landmarks]]:
    """Each key of a table with its row of the (N, 10) or (N, 8) ``points``; what float32 cannot hold is infinite."""
    with np.errstate(over="ignore"):
        points = points.astype(np.float32)
    pairs = points.astype(float).reshape(len(keys), -1, 2).tolist()
    for number, (key, row) in enumerate(zip(keys, pairs, strict=True), 1):
        yield key, Landmarks(points=tuple((x, y) for x, y in row), place=f"{path.name} row {number}")


def _name(key: str) -> str:
    return _SUFFIX.sub("", re.split(r"[/\\]", key.strip().strip('"'))[-1]).lower()
