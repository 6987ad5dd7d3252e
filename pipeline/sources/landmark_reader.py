"""Reads landmark tables: CSV files with or without a header, Parquet files, and four-point text files."""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from pipeline.sources.landmarks import HEADER, POINT_NAMES, LandmarkError, LandmarkTable, TableFile, clean_keys

FIVE_POINT_NUMBERS, FOUR_POINT_NUMBERS = len(POINT_NAMES), 8
CSV_BLOCK_BYTES = 4 << 20
PARQUET_BLOCK_ROWS = 1 << 16
_SEPARATOR = re.compile(r"\s*[,;]\s*|\s+")

# Some consecutive rows of one file: names as in the file; (n, 10) float32, or (n, 8) for four points; row -> problem.
_Block = tuple[pa.Array, np.ndarray, dict[int, str]]


def read_landmarks(paths: Sequence[Path], *, four_points: bool = False) -> LandmarkTable:
    """Reads landmark files, one after another.

    Accepts CSV in VGGFace2's form (header ``NAME_ID,P1X,...,P5Y``; names with or without quotes, extension and split
    prefix) or without a header (path and ten numbers), and Parquet with columns ``key`` and ``landmarks`` (ten
    numbers each). Numbers that are missing or not finite are recorded in ``problems``.

    Args:
        four_points: also accept text files whose lines hold a name and eight numbers, x and y of left eye, right
            eye, nose and mouth centre, separated by blanks, tabs, commas or semicolons. Lines without numbers are
            ignored.

    Raises:
        LandmarkError: a file is absent, empty, malformed or not a regular file.
    """
    for path in paths:
        if path.exists() and not path.is_file():
            raise LandmarkError(f"{path}: not a regular file; expected a landmark table")
    keys: list[pa.Array] = []
    points = np.empty((sum(map(_max_rows, paths)), FIVE_POINT_NUMBERS), np.float32)
    problems: dict[int, str] = {}
    files: list[TableFile] = []
    total = 0
    for path in paths:
        start, numbers = total, FIVE_POINT_NUMBERS
        for names, block, block_problems in _blocks(path, four_points):
            end, numbers = total + len(names), block.shape[1]
            keys.append(clean_keys(names))
            points[total:end, :numbers] = block
            points[total:end, numbers:] = np.nan
            problems.update((total + row, reason) for row, reason in block_problems.items())
            total = end
        files.append(TableFile(path=path, rows=total - start, numbers=numbers))
    if total == 0:
        raise LandmarkError(f"{', '.join(map(str, paths))}: no landmark rows")
    table = LandmarkTable(keys=pa.concat_arrays(keys), points=points[:total], problems=problems, files=files)
    del keys, names
    pa.default_memory_pool().release_unused()
    return table


def _blocks(path: Path, four_points: bool) -> Iterator[_Block]:
    if _is_parquet(path):
        return _parquet_blocks(path)
    if four_points and has_four_points(path):
        return iter([_four_point_block(path)])
    return _csv_blocks(path)


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() == ".parquet"


def _max_rows(path: Path) -> int:
    """Upper bound of the rows of a file. Unused rows of ``np.empty`` cost no memory; joining blocks would double it."""
    with contextlib.suppress(OSError, pa.ArrowException):
        if _is_parquet(path):
            return int(pq.read_metadata(path).num_rows)
        with open(path, "rb") as stream:
            blocks = iter(lambda: stream.read(1 << 20), b"")
            return 1 + sum(block.count(b"\n") + block.count(b"\r") for block in blocks)
    return 0


def _parquet_blocks(path: Path) -> Iterator[_Block]:
    row = 0
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            missing = {"key", "landmarks"} - set(file.schema_arrow.names)
            if missing:
                raise ValueError(f"no column {' or '.join(sorted(missing))}")
            batches = file.iter_batches(PARQUET_BLOCK_ROWS, columns=["key", "landmarks"], use_threads=False)
            for batch in batches:
                yield _parquet_block(batch, row)
                row += batch.num_rows
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:80]
        raise LandmarkError(f"{path}: not a table with columns key and landmarks ({reason})") from None


def _parquet_block(batch: pa.RecordBatch, start: int) -> _Block:
    """Raises: ValueError: a list does not hold ten numbers."""
    lists = batch.column("landmarks")
    lengths = pc.fill_null(pc.list_value_length(lists), FIVE_POINT_NUMBERS).to_numpy(zero_copy_only=False)
    for row in np.flatnonzero(lengths != FIVE_POINT_NUMBERS)[:1]:
        raise ValueError(f"row {start + row + 1}: {lengths[row]} numbers, expected {FIVE_POINT_NUMBERS}")
    present = lists.is_valid().to_numpy(zero_copy_only=False)
    numbers = pc.cast(pc.list_flatten(lists), pa.float64()).to_numpy(zero_copy_only=False)
    points = np.full((batch.num_rows, FIVE_POINT_NUMBERS), np.nan, np.float32)
    points[present] = _float32(numbers).reshape(-1, FIVE_POINT_NUMBERS)
    problems = dict.fromkeys(np.flatnonzero(~present).tolist(), "the landmarks are missing")
    names = pc.fill_null(pc.cast(batch.column("key"), pa.string()), "")
    return names, points, _not_finite(points) | problems


def has_four_points(path: Path) -> bool:
    """Returns True if most lines with numbers have eight. Raises: LandmarkError: the file cannot be read."""
    counts = [len(numbers) for _, _, numbers in _numbered_lines(path)]
    return counts.count(FOUR_POINT_NUMBERS) > max(1, len(counts) // 2)


def _four_point_block(path: Path) -> _Block:
    lines = list(_numbered_lines(path))
    for line, _, numbers in lines:
        if len(numbers) != FOUR_POINT_NUMBERS:
            raise LandmarkError(
                f"{path}: line {line}: {len(numbers)} numbers, expected {FOUR_POINT_NUMBERS}: x and y of left eye,"
                " right eye, nose and mouth centre"
            )
    points = _float32(np.array([numbers for _, _, numbers in lines]))
    names = pa.array([name.strip('"') for _, name, _ in lines], pa.string())
    return names, points, _not_finite(points)


def _numbered_lines(path: Path) -> Iterator[tuple[int, str, list[float]]]:
    """Yields line number, name and numbers of each line that consists of a name and numbers."""
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise LandmarkError(f"{path}: {error.strerror}; expected a landmark table") from None
    for number, line in enumerate(lines, 1):
        name, *fields = _SEPARATOR.split(line.strip())
        try:
            numbers = [float(field) for field in fields]
        except ValueError:
            continue
        if numbers:
            yield number, name, numbers


def _csv_blocks(path: Path) -> Iterator[_Block]:
    header = _has_header(path)
    texts = dict.fromkeys(HEADER, pa.string())
    try:
        batches = pa.csv.open_csv(
            path,
            read_options=pa.csv.ReadOptions(column_names=HEADER, use_threads=False, block_size=CSV_BLOCK_BYTES),
            convert_options=pa.csv.ConvertOptions(column_types=texts, strings_can_be_null=False),
        )
        for number, batch in enumerate(batches):
            yield _csv_block(batch.slice(1) if header and number == 0 else batch)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise LandmarkError(_malformed_line(path) or f"{path}: {str(error).splitlines()[0]}") from None


def _csv_block(batch: pa.RecordBatch) -> _Block:
    points = np.empty((batch.num_rows, FIVE_POINT_NUMBERS), np.float32)
    for index, texts in enumerate(batch.columns[1:]):
        try:
            numbers = pc.cast(texts, pa.float64()).to_numpy()
        except pa.ArrowInvalid:
            numbers = np.array([float(text) if _is_number(text) else np.nan for text in texts.to_pylist()])
        points[:, index] = _float32(numbers)
    return batch.column(0), points, _not_finite(points, batch.columns[1:])


def _has_header(path: Path) -> bool:
    expected = f"expected the header {','.join(HEADER)}"
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            first = next(csv.reader(stream), [])
    except OSError as error:
        raise LandmarkError(f"{path}: {error.strerror}; expected a landmark CSV ({','.join(HEADER)})") from None
    except csv.Error as error:
        raise LandmarkError(f"{path}: line 1: {error}; {expected}") from None
    if not _is_text(first):
        raise LandmarkError(f"{path}: line 1: not UTF-8 text; {expected}")
    fields = [field.strip().strip('"').upper() for field in first]
    if fields == HEADER:
        return True
    if len(fields) == len(HEADER) and all(_is_number(field) or not field for field in fields[1:]) and any(fields[1:]):
        return False
    found = ",".join(first)[:80] or "an empty line"
    raise LandmarkError(f"{path}: line 1: found {found!r}, {expected} (or, without a header, a path and 10 numbers)")


def _malformed_line(path: Path) -> str | None:
    """Describes the first malformed line; only called after Arrow has rejected the file."""
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as stream:
        reader = csv.reader(stream)
        line = 1  # first line of the record: an open quote swallows the lines after it
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


def _float32(numbers: np.ndarray) -> np.ndarray:
    """Converts to float32; numbers beyond its range become infinite."""
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32)


def _not_finite(points: np.ndarray, texts: Sequence[pa.Array] | None = None) -> dict[int, str]:
    """Row -> description of its first number that is missing or not finite; ``texts`` are the columns of a CSV file."""
    finite = np.isfinite(points)
    problems = {}
    for row in np.flatnonzero(~finite.all(1)).tolist():
        index = int(finite[row].argmin())
        value = texts[index][row].as_py() if texts else points[row, index]
        found = f"is {value!r}, not a finite number" if texts else f"is {value}, not a finite number"
        problems[row] = f"{POINT_NAMES[index]} {'is missing' if texts and not value.strip() else found}"
    return problems


def _is_text(fields: list[str]) -> bool:
    """Returns False for bytes that are not UTF-8 (read as lone surrogates) and for NUL."""
    return not any(character == "\0" or "\udc80" <= character <= "\udcff" for field in fields for character in field)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
