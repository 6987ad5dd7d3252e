"""Reads landmark tables: text tables of every kind, and Parquet files."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.tables.landmark_layout import TextLayout, has_four_points, text_layout
from pipeline.tables.landmark_scale import check_pixels
from pipeline.tables.landmark_table import (
    FIVE_POINT_NUMBERS,
    HEADER,
    POINT_NAMES,
    Block,
    LandmarkError,
    LandmarkTable,
    TableFile,
    clean_keys,
    float32,
    last_two_parts,
    not_finite,
    suffix_codes,
    valid_keys,
)
from pipeline.tables.landmark_text import text_blocks
from pipeline.tables.row_values import RowValues
from pipeline.tables.streams import open_stream
from pipeline.tables.text_column import TextColumn
from shards.arguments import check_paths
from shards.files import StrPath
from shards.messages import counted, first_line
from shards.tables import PARQUET_ERRORS

PARQUET_BLOCK_ROWS = 1 << 16
MAX_ROWS_PER_BYTE = 1024  # of a Parquet file: equal rows take next to nothing, but memory is allocated for each
PARQUET_START = b"PAR1"
_SCAN_BYTES = 1 << 20


def read_landmarks(
    paths: StrPath | Sequence[StrPath], *, four_points: bool = False, identities: bool = False
) -> LandmarkTable:
    """Reads landmark files, one after another. A file may be a pipe.

    Accepts text tables whose lines hold a path and ten numbers, separated by commas, tabs, semicolons or blanks, with or
    without a header (``NAME_ID,P1X,...,P5Y`` in VGGFace2), and Parquet with columns ``key`` and ``landmarks`` (ten
    numbers each), or with those that ``landmarks`` writes. Text may be in UTF-8, UTF-16 or UTF-32; lines that begin with
    ``#`` are comments, unless they are rows whose names begin so. Names may be in quotes, may have an extension, and may
    have any folders in front. Numbers that are missing or not finite, and empty names, are recorded in ``problems``.

    Args:
        paths: one file or several.
        four_points: also accept text tables of eight numbers, x and y of left eye, right eye, nose and mouth centre.
            Their lines without numbers are ignored.
        identities: drop the folders above ``identity/image`` from the keys; they take memory.

    Raises:
        LandmarkError: a file is absent, empty, malformed, or neither a regular file nor a pipe, or its numbers are
            normalised, or the keys have more than 2 GiB.
    """
    with contextlib.ExitStack() as stack:
        tables = [_look(path, stack, four_points) for path in check_paths("paths", paths)]
        # Unused rows of np.empty cost no memory; joining blocks would double it.
        points = np.empty((sum(table.max_rows for table in tables), FIVE_POINT_NUMBERS), np.float32)
        keys, suffixes = TextColumn(len(points)), [np.empty(0, np.int8)]
        problems: RowValues[str] = RowValues()
        files: list[TableFile] = []
        for table in tables:
            start = len(keys)
            with _checked(table.path):
                for names, block, block_problems in table.blocks():
                    first = len(keys)
                    cleaned = last_two_parts(clean_keys(names)) if identities else clean_keys(names)
                    suffixes += [] if identities else [suffix_codes(names)]
                    if not keys.append(cleaned):
                        raise LandmarkError(
                            f"{table.path}: the names have more than 2 GiB; build from parts of the table"
                        )
                    nameless = np.flatnonzero(pc.equal(cleaned, "").to_numpy(zero_copy_only=False))
                    block_problems |= dict.fromkeys(nameless.tolist(), "the name is empty")
                    points[first : len(keys), : table.numbers] = block
                    points[first : len(keys), table.numbers :] = np.nan
                    for row in sorted(block_problems):
                        problems.append(first + row, block_problems[row])
            check_pixels(table.path, points[start : len(keys), : table.numbers])
            files.append(TableFile(path=table.path, rows=len(keys) - start, numbers=table.numbers, sha256=table.sha256))
    if len(keys) == 0:
        raise LandmarkError(f"{', '.join(str(file.path) for file in files)}: no landmark rows")
    del names, cleaned
    pa.default_memory_pool().release_unused()
    return LandmarkTable(
        keys=keys.array(),
        suffixes=np.concatenate(suffixes),
        points=points[: len(keys)],
        problems=problems,
        files=files,
    )


def image_paths(path: Path) -> pa.Array | None:
    """Returns the paths in a Parquet table that ``landmarks`` wrote, with split and extension; None for any other table."""
    if path.suffix.lower() != ".parquet" or not path.is_file():  # a pipe cannot be read twice
        return None
    with _checked(path), open_stream(path) as stream, pq.ParquetFile(stream, pre_buffer=False) as file:
        if not {"path", "reason"} <= set(file.schema_arrow.names):
            return None
        return valid_keys(_names(file.read(columns=["path"], use_threads=False)["path"].combine_chunks()))


def is_four_point_table(path: Path) -> bool:
    """Returns True if most lines with numbers have eight. Raises: LandmarkError: the file cannot be read."""
    with _checked(path), open_stream(path) as stream:
        return has_four_points(stream)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _OpenTable:
    """An open landmark file; ``layout`` is None for Parquet."""

    path: Path
    stream: BinaryIO
    layout: TextLayout | None
    max_rows: int
    sha256: str

    @property
    def numbers(self) -> int:
        return self.layout.numbers if self.layout else FIVE_POINT_NUMBERS

    def blocks(self) -> Iterator[Block]:
        if self.layout is None:
            return _parquet_blocks(self.path, self.stream)
        return text_blocks(self.path, self.stream, self.layout)


def _look(path: Path, stack: contextlib.ExitStack, four_points: bool) -> _OpenTable:
    """Opens a file until ``stack`` is closed, and finds out how it is written."""
    with _checked(path):
        stream = stack.enter_context(open_stream(path))
        is_parquet = path.suffix.lower() == ".parquet" or stream.read(len(PARQUET_START)) == PARQUET_START
        layout = None if is_parquet else text_layout(path, stream, four_points)
        rows = parquet_rows(path, stream) if is_parquet else None
        sha256, lines = scan(stream)  # last: what is no table may be huge
        return _OpenTable(
            path=path, stream=stream, layout=layout, max_rows=lines if rows is None else rows, sha256=sha256
        )


@contextlib.contextmanager
def _checked(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LandmarkError(
            f"{path}: {error.strerror or error}; expected a landmark CSV ({','.join(HEADER)}) or Parquet file"
        ) from None


def scan(stream: BinaryIO) -> tuple[str, int]:
    """Returns the SHA-256 of a file and an upper bound of its lines."""
    stream.seek(0)
    value, lines = hashlib.sha256(), 1
    while block := stream.read(_SCAN_BYTES):
        value.update(block)
        lines += block.count(b"\n") + block.count(b"\r")
    return value.hexdigest(), lines


def parquet_rows(path: Path, stream: BinaryIO) -> int:
    """Returns the number of rows. Raises: LandmarkError: more than the file can hold."""
    bytes_in_all = stream.seek(0, os.SEEK_END)
    rows = 0
    with contextlib.suppress(*PARQUET_ERRORS):  # reading the rows raises them again
        rows = int(pq.read_metadata(stream).num_rows)
    if not 0 <= rows <= MAX_ROWS_PER_BYTE * bytes_in_all:
        raise LandmarkError(f"{path}: states {rows:,} rows in {bytes_in_all:,} bytes; restore the file")
    return rows


def parquet_batches(file: pq.ParquetFile, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yields the rows of some columns, validated. Raises: PARQUET_ERRORS: damaged, or more rows than the file states."""
    found = 0
    for batch in file.iter_batches(PARQUET_BLOCK_ROWS, columns=columns, use_threads=False):
        batch.validate(full=True)
        found += batch.num_rows
        if found > file.metadata.num_rows:
            raise ValueError(f"more than the {file.metadata.num_rows} rows that it states")
        yield batch


def _parquet_blocks(path: Path, stream: BinaryIO) -> Iterator[Block]:
    row = 0
    stream.seek(0)
    try:
        with pq.ParquetFile(stream, pre_buffer=False) as file:
            columns, read = _parquet_form(set(file.schema_arrow.names))
            for batch in parquet_batches(file, columns):
                yield read(batch, row)
                row += batch.num_rows
    except PARQUET_ERRORS as error:
        raise LandmarkError(f"{path}: not a table with columns key and landmarks ({first_line(error)})") from None


def _parquet_form(names: set[str]) -> tuple[list[str], Callable[[pa.RecordBatch, int], Block]]:
    """Returns the columns to read and their reader. Raises: ValueError: columns are missing."""
    name = next((name for name in ("key", "path", HEADER[0]) if name in names), None)
    if name and "landmarks" in names:
        return [name, "landmarks"], _list_block
    if name is None or not names.issuperset(POINT_NAMES):
        raise ValueError(f"no column {' or '.join(sorted({'key', 'landmarks'} - names))}")
    return [name, *POINT_NAMES, *({"reason"} & names)], _column_block


def _list_block(batch: pa.RecordBatch, start: int) -> Block:
    """Raises: ValueError: a list does not hold ten numbers, or text is not UTF-8."""
    lists = batch.column("landmarks")
    lengths = pc.fill_null(pc.list_value_length(lists), FIVE_POINT_NUMBERS).to_numpy(zero_copy_only=False)
    for row in np.flatnonzero(lengths != FIVE_POINT_NUMBERS)[:1]:
        raise ValueError(
            f"row {start + row + 1}: {counted(int(lengths[row]), 'number')}, expected {FIVE_POINT_NUMBERS}"
        )
    present = lists.is_valid().to_numpy(zero_copy_only=False)
    numbers = pc.cast(pc.list_flatten(lists), pa.float64()).to_numpy(zero_copy_only=False)
    points = np.full((batch.num_rows, FIVE_POINT_NUMBERS), np.nan, np.float32)
    points[present] = float32(numbers).reshape(-1, FIVE_POINT_NUMBERS)
    problems = dict.fromkeys(np.flatnonzero(~present).tolist(), "the landmarks are missing")
    return _names(batch.column(0)), points, not_finite(points) | problems


def _column_block(batch: pa.RecordBatch, start: int) -> Block:
    """A table with a column a number, as ``landmarks`` writes it; its reason is that of a row without numbers."""
    points = np.empty((batch.num_rows, FIVE_POINT_NUMBERS), np.float32)
    for index, column in enumerate(POINT_NAMES):
        numbers = pc.fill_null(pc.cast(batch.column(column), pa.float64()), np.nan)
        points[:, index] = float32(numbers.to_numpy(zero_copy_only=False))
    empty = np.flatnonzero(np.isnan(points).all(1)).tolist()
    problems = dict.fromkeys(empty, "the landmarks are missing")
    if "reason" in batch.schema.names:
        texts = pc.cast(batch.column("reason"), pa.string())
        problems |= {row: text for row in empty if (text := texts[row].as_py())}
        return valid_keys(_names(batch.column(0))), points, not_finite(points) | problems
    return _names(batch.column(0)), points, not_finite(points) | problems


def _names(column: pa.Array) -> pa.Array:
    return pc.fill_null(pc.cast(column, pa.string()), "")
