"""Looks up the landmarks of image files in a table, by file name or by path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.sources.landmarks import LandmarkError, Landmarks, LandmarkTable, clean_keys


class NameLookup:
    """Finds landmarks by file name, ignoring folder, extension and case.

    Rows with the same name must have the same numbers. A row without numbers is used only if its name has no other.
    """

    def __init__(self, table: LandmarkTable) -> None:
        """Raises: LandmarkError: two rows of one name have different numbers."""
        names = pc.utf8_lower(pc.replace_substring_regex(table.keys, r"(?s)^.*[/\\]", "")).dictionary_encode()
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
        row = self._rows.get(path.stem.lower())
        if row is None:
            return Landmarks(points=(), place=", ".join(file.path.name for file in self._table.files))
        return self._table.landmarks(row)

    def require_any(self, paths: Sequence[Path], title: str) -> None:
        """Raises: LandmarkError: the table has no landmarks for any of the images ``paths`` of data set ``title``."""
        if not any(path.stem.lower() in self._rows for path in paths):
            raise LandmarkError(
                f"{', '.join(str(file.path) for file in self._table.files)}: no landmarks for any image of {title},"
                f" for example {paths[0].stem}; name the right table with --landmarks"
            )


class PathLookup:
    """Finds landmarks by the longest table key that is a suffix of the image's path.

    For example ``n000001/0001_01`` matches ``VGGFace2/train/n000001/0001_01.jpg``, and so does ``0001_01``.
    """

    def __init__(self, table: LandmarkTable, paths: Sequence[str]) -> None:
        """
        Args:
            paths: (N,) image paths, with slashes.
        """
        self._table, self._source = table, ", ".join(str(file.path) for file in table.files)
        self._rows = np.full(len(paths), -1)
        deepest = pc.max(pc.count_substring(table.keys, "/")).as_py() + 1
        for depth in range(1, deepest + 1):
            suffixes = pa.array(["/".join(path.split("/")[-depth:]) for path in paths])
            found = pc.index_in(clean_keys(suffixes), value_set=table.keys).fill_null(-1).to_numpy()
            self._rows = np.where(found >= 0, found, self._rows)
        codes = table.keys.dictionary_encode().indices.to_numpy()
        self._repeated = (np.bincount(codes) > 1)[codes]
        self._shared = np.bincount(self._rows[self._rows >= 0], minlength=len(codes)) > 1

    def problem(self, image: int) -> str | None:
        """Returns why image number ``image`` has no unambiguous landmarks; None if it has."""
        row = self._rows[image]
        if row < 0:
            return f"no landmarks in {self._source}"
        if self._repeated[row]:
            return f"duplicate landmarks in {self._source}"
        if self._shared[row]:
            return f"several images match these landmarks in {self._source}"
        return None

    def find(self, image: int) -> Landmarks:
        """Returns the landmarks of image number ``image``, which must have no ``problem``."""
        return self._table.landmarks(int(self._rows[image]))
