"""Looks up the landmarks of image files in a table, by file name or by path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.images.lookup import composed
from pipeline.tables.landmark_order import report_order
from pipeline.tables.landmark_table import (
    LandmarkError,
    Landmarks,
    LandmarkTable,
    clean_keys,
    composed_column,
    suffix_codes,
)


class NameLookup:
    """Finds landmarks by file name, ignoring folder, extension, case and Unicode normal form.

    Rows with the same name must have the same numbers. A row without numbers is used only if its name has no other.
    """

    def __init__(self, table: LandmarkTable) -> None:
        """Raises: LandmarkError: two rows of one name have different numbers."""
        report_order(table.points, ", ".join(file.path.name for file in table.files))
        names = pc.utf8_lower(pc.replace_substring_regex(table.keys, r"(?s)^.*/", ""))
        names = composed_column(names).dictionary_encode()
        codes = names.indices.to_numpy()
        numbers = table.points
        empty = np.isnan(numbers).all(1)
        order = np.argsort(empty, kind="stable")
        first = order[np.unique(codes[order], return_index=True)[1]]
        expected = numbers[first[codes]]
        differs = ((numbers != expected) & ~(np.isnan(numbers) & np.isnan(expected))).any(1) & ~empty
        for row in np.flatnonzero(differs)[:1].tolist():
            places = [table.landmarks(index).place for index in (int(first[codes[row]]), row)]
            raise LandmarkError(
                f"{', '.join(str(file.path) for file in table.files)}: the landmarks of {table.keys[row]} differ"
                f" between {places[0]} and {places[1]}; keep one of them"
            )
        self._table = table
        self._rows = dict(zip(names.dictionary.to_pylist(), first.tolist(), strict=True))

    def find(self, path: Path) -> Landmarks:
        """Returns the landmarks of an image, without points if the table has none."""
        row = self._rows.get(composed(path.stem.lower()))
        if row is None:
            return Landmarks(points=(), place=", ".join(file.path.name for file in self._table.files))
        return self._table.landmarks(row)

    def require_any(self, paths: Sequence[Path], title: str) -> None:
        """Raises: LandmarkError: the table has no landmarks for any of the images ``paths`` of data set ``title``."""
        if not any(composed(path.stem.lower()) in self._rows for path in paths):
            raise LandmarkError(
                f"{', '.join(str(file.path) for file in self._table.files)}: no landmarks for any image of {title},"
                f" for example {paths[0].stem}; name the right table with --landmarks"
            )


class PathLookup:
    """Finds landmarks by the table key that shares the longest end with the image's path.

    For example ``n000001/0001_01`` matches ``VGGFace2/train/n000001/0001_01.jpg``, and so does ``0001_01``. Longer keys,
    such as absolute paths, need not match as a whole, but in their last two parts at least. Extensions count only where
    names differ by them alone.
    """

    def __init__(self, table: LandmarkTable, paths: Sequence[str]) -> None:
        """
        Args:
            paths: (N,) image paths, with slashes.
        """
        self._table, self._source = table, ", ".join(str(file.path) for file in table.files)
        names = pa.array(paths, pa.string())
        keys, images = composed_column(table.keys), composed_column(clean_keys(names))
        self._rows, self._repeated = _longest_matches(keys, images)
        self._shared = _are_repeated(self._rows)
        unclear = np.flatnonzero(self._repeated | self._shared)
        if len(unclear) and len(table.suffixes):  # 1.jpg beside 1.png
            some = _with_suffixes(images.take(pa.array(unclear)), suffix_codes(names.take(pa.array(unclear))))
            rows, repeated = _longest_matches(_with_suffixes(keys, table.suffixes), some)
            clear = (rows >= 0) & ~repeated & ~_are_repeated(rows)
            self._rows[unclear[clear]] = rows[clear]
            self._repeated[unclear[clear]] = self._shared[unclear[clear]] = False

    def problem(self, image: int) -> str | None:
        """Returns why image number ``image`` has no unambiguous landmarks; None if it has."""
        row = self._rows[image]
        if row < 0:
            return f"no landmarks in {self._source}"
        if self._repeated[image]:
            return f"duplicate landmarks in {self._source}"
        if self._shared[image]:
            return f"several images match these landmarks in {self._source}"
        return None

    def find(self, image: int) -> Landmarks:
        """Returns the landmarks of image number ``image``, which must have no ``problem``."""
        return self._table.landmarks(int(self._rows[image]))

    def points(self) -> tuple[np.ndarray, dict[int, str]]:
        """Returns the (N, 10) float32 points of all images, NaN where there are none, and those images' problems.

        A row of the table without usable numbers gives its own reason, such as that no face was found.
        """
        points = np.full((len(self._rows), self._table.points.shape[1]), np.nan, np.float32)
        found = self._rows >= 0
        points[found] = self._table.points[self._rows[found]]
        bad = ~found | self._repeated | self._shared
        points[bad] = np.nan
        reasons = {image: str(self.problem(image)) for image in np.flatnonzero(bad).tolist()}
        unusable = ~bad & np.isin(self._rows, np.fromiter(self._table.problems, np.int64))
        for image in np.flatnonzero(unusable).tolist():
            reasons[image] = self._table.problems[int(self._rows[image])]
        return points, reasons


def _longest_matches(keys: pa.Array, images: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Returns for each image the row whose key shares its longest end, or -1, and whether other rows match as well."""
    matched, repeated = np.full(len(images), -1), np.zeros(len(images), bool)
    parts = pc.add(pc.count_substring(keys, "/"), 1).to_numpy(zero_copy_only=False)
    for depth in range(1, int(parts.max()) + 1):
        ends = _last_parts(images, depth)
        longer, whole = np.flatnonzero((parts > depth) & (depth > 1)), np.flatnonzero(parts == depth)
        for rows in (longer, whole):  # a key that matches as a whole has precedence
            if len(rows):
                values = _last_parts(keys.take(pa.array(rows)), depth)
                found = pc.index_in(ends, value_set=values).fill_null(-1).to_numpy(zero_copy_only=False)
                several = _are_repeated(values.dictionary_encode().indices.to_numpy(zero_copy_only=False))
                matched = np.where(found >= 0, rows[found], matched)
                repeated = np.where(found >= 0, several[found], repeated)
    return matched, repeated


def _are_repeated(codes: np.ndarray) -> np.ndarray:
    """Whether each number occurs several times; negative ones do not count."""
    counts = np.bincount(codes[codes >= 0], minlength=1)
    return (codes >= 0) & (counts[codes] > 1)


def _with_suffixes(keys: pa.Array, codes: np.ndarray) -> pa.Array:
    return pc.binary_join_element_wise(keys, pc.cast(pa.array(codes), pa.string()), ".")


def _last_parts(names: pa.Array, depth: int) -> pa.Array:
    """The last ``depth`` parts of names that are separated by slashes; shorter names stay as they are."""
    return pc.replace_substring_regex(names, rf"(?s)^.*/([^/]*(?:/[^/]*){{{depth - 1}}})$", r"\1")
