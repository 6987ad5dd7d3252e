"""Landmark tables: five points a face from the CSV files of the field."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from shards.errors import LrfrError

POINT_NAMES = [f"P{point}{axis}" for point in range(1, 6) for axis in "XY"]
HEADER = ["NAME_ID", *POINT_NAMES]
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


class LandmarkError(LrfrError):
    """A landmark table that cannot be read. One line: file, line, what was found and expected."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LandmarkTable:
    """Rows of one or several landmark files, in file order.

    Attributes:
        keys: (N,) ``identity/image``, without extension and without a ``train/`` or ``test/`` prefix.
        points: (N, 10) float32, x and y of left eye, right eye, nose, left and right mouth corner (as the
            viewer sees them), px; not a number where the file has none.
        problems: row -> what is wrong with its numbers.
        files: name and number of rows of each file.
    """

    keys: pa.StringArray
    points: np.ndarray
    problems: dict[int, str]
    files: list[tuple[str, int]]

    def place(self, row: int) -> str:
        """``loose_landmark_test.csv row 12``: where a row came from."""
        for name, rows in self.files:
            if row < rows:
                return f"{name} row {row + 1}"
            row -= rows
        raise IndexError(row)

    def repeats(self, row: int) -> str:
        """What is wrong with a later row of the same key."""
        return f"NAME_ID given before, in {self.place(row)}"


def read_landmarks(paths: Sequence[Path]) -> LandmarkTable:
    """Reads landmark CSV files, one after another.

    Accepts VGGFace2's form (header ``NAME_ID,P1X,...,P5Y``, names with or without quotes, extension and split
    prefix) and the header-less form (path and ten numbers). Numbers that are missing or not finite are noted in
    ``problems``; they do not stop the reading.

    Raises:
        LandmarkError: a file is absent, empty or not UTF-8, has another header, or a line with another number of fields.
    """
    keys: list[pa.Array] = []
    points = np.empty((sum(map(_most_rows, paths)), len(POINT_NAMES)), np.float32)
    problems: dict[int, str] = {}
    files: list[tuple[str, int]] = []
    total = 0
    for path in paths:
        start = total
        for block in _blocks(path):
            keys.append(clean_keys(block.column(0)))
            points[total : total + block.num_rows] = _numbers(block, total, problems)
            total += block.num_rows
        files.append((path.name, total - start))
    if total == 0:
        raise LandmarkError(f"{', '.join(map(str, paths))}: no landmark rows")
    table = LandmarkTable(keys=pa.concat_arrays(keys), points=points[:total], problems=problems, files=files)
    del keys, block
    pa.default_memory_pool().release_unused()
    return table


def _most_rows(path: Path) -> int:
    """No fewer than a file has: what is reserved and not filled costs no memory; joining parts would hold them twice."""
    ends = 0
    with contextlib.suppress(OSError), open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            ends += block.count(b"\n") + block.count(b"\r")
    return ends + 1


def _blocks(path: Path) -> Iterator[pa.RecordBatch]:
    skip = 1 if _has_header(path) else 0
    try:
        yield from pa.csv.open_csv(
            path,
            read_options=pa.csv.ReadOptions(column_names=HEADER, skip_rows=skip, use_threads=False, block_size=4 << 20),
            convert_options=pa.csv.ConvertOptions(
                column_types=dict.fromkeys(HEADER, pa.string()), strings_can_be_null=False
            ),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        problem = _malformed_line(path) or (
            None if skip and _is_one_line(path) else f"{path}: {str(error).splitlines()[0]}"
        )
        if problem:
            raise LandmarkError(problem) from None


def _is_one_line(path: Path) -> bool:
    """True for a header and nothing else, which Arrow refuses where its line is not ended."""
    with open(path, "rb") as stream:
        return len(stream.readlines(1 << 16)) <= 1


def _has_header(path: Path) -> bool:
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            first = next(csv.reader(stream), [])
    except OSError as error:
        raise LandmarkError(f"{path}: {error.strerror}; expected a landmark CSV ({','.join(HEADER)})") from None
    except csv.Error as error:
        raise LandmarkError(f"{path}: line 1: {error}; expected the header {','.join(HEADER)}") from None
    if not _is_text(first):
        raise LandmarkError(f"{path}: line 1: not UTF-8 text; expected the header {','.join(HEADER)}")
    fields = [field.strip().strip('"').upper() for field in first]
    if fields == HEADER:
        return True
    if len(fields) == len(HEADER) and all(_is_number(field) or not field for field in fields[1:]) and any(fields[1:]):
        return False
    found = ",".join(first)[:80] or "an empty line"
    raise LandmarkError(
        f"{path}: line 1: found {found!r}, expected the header {','.join(HEADER)} (or, without a header, a path and 10 numbers)"
    )


def _malformed_line(path: Path) -> str | None:
    """Finds the first bad line; only walked when the fast reader has refused the file."""
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as stream:
        reader = csv.reader(stream)
        line = 1  # where the record starts: a quote left open swallows the lines behind it
        try:
            for fields in reader:
                if fields and len(fields) != len(HEADER):
                    return f"{path}: line {line}: {len(fields)} fields, expected {len(HEADER)} ({','.join(HEADER)})"
                if not _is_text(fields):
                    return f"{path}: line {line}: not UTF-8 text"
                line = reader.line_num + 1
        except csv.Error as error:
            return f"{path}: line {line}: {error}"
    return None


def clean_keys(column: pa.Array) -> pa.Array:
    """Names as keys: without white space around them, image extension and ``train/`` or ``test/`` prefix."""
    suffixes = "|".join(suffix[1:] for suffix in IMAGE_SUFFIXES)
    keys = pc.utf8_trim_whitespace(column)
    keys = pc.replace_substring_regex(keys, rf"(?i)\.({suffixes})$", "")
    return pc.replace_substring_regex(keys, r"^(?:train|test)/([^/]+/)", r"\1")


def _numbers(block: pa.RecordBatch, start: int, problems: dict[int, str]) -> np.ndarray:
    out = np.empty((block.num_rows, len(POINT_NAMES)), np.float32)
    for index in range(len(POINT_NAMES)):
        texts = block.column(index + 1)
        with np.errstate(over="ignore"):  # beyond float32 is infinite, and told below
            try:
                out[:, index] = pc.cast(texts, pa.float64())
            except pa.ArrowInvalid:
                out[:, index] = [float(text) if _is_number(text) else np.nan for text in texts.to_pylist()]
    for row in np.flatnonzero(~np.isfinite(out).all(1)).tolist():
        index = int(np.flatnonzero(~np.isfinite(out[row]))[0])
        text = block.column(index + 1)[row].as_py()
        problems[start + row] = (
            f"{POINT_NAMES[index]} is {text!r}, not a finite number"
            if text.strip()
            else f"{POINT_NAMES[index]} is missing"
        )
    return out


def _is_text(fields: list[str]) -> bool:
    """False for bytes that are not UTF-8 (read as lone surrogates) and for NUL."""
    return not any(character == "\0" or "\udc80" <= character <= "\udcff" for field in fields for character in field)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
