"""Tables of images with their identities: text lists, JSON lines and Parquet."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.images.lookup import valid_text
from pipeline.sources.image_text import EXPECTED, IDENTITY, PATH, SPLIT, known_columns, list_blocks, list_layout
from pipeline.sources.labels import row_points
from pipeline.sources.source import SourceError
from pipeline.sources.tar_members import MAX_LABEL_BYTES, POINT_FIELDS, identity_text
from pipeline.tables.landmark_reader import PARQUET_START, parquet_batches, parquet_rows, scan
from pipeline.tables.landmark_table import FIVE_POINT_NUMBERS, POINT_NAMES, LandmarkError, float32
from pipeline.tables.streams import open_stream
from pipeline.tables.text_lines import line_blocks
from pipeline.tables.text_numbers import text_numbers
from shards.messages import first_line
from shards.tables import PARQUET_ERRORS

_NO_POINTS = [float("nan")] * FIVE_POINT_NUMBERS


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageTable:
    """The N rows of a table.

    Attributes:
        paths: (N,) as stated; empty if missing.
        identities: (N,) null where none is stated.
        splits: (N,), or None if the table has no such column.
        points: (N, 10) float32, NaN where a number is missing; None if the table has none.
        sha256: of the file.
    """

    paths: pa.StringArray
    identities: pa.StringArray
    splits: pa.StringArray | None
    points: np.ndarray | None
    sha256: str


def read_image_table(path: Path) -> ImageTable:
    """Reads a table: text (``.csv`` or any other), JSON lines (``.jsonl``) or Parquet. It may be a pipe.

    Raises:
        SourceError: it cannot be read, or lacks a column.
    """
    try:
        with open_stream(path) as stream:
            start = stream.read(len(PARQUET_START))
            stream.seek(0)
            if start == PARQUET_START or path.suffix.lower() == ".parquet":
                blocks = list(_parquet_blocks(path, stream))
            elif path.suffix.lower() in (".jsonl", ".ndjson") or start.startswith(b"{"):
                blocks = list(_json_blocks(path, stream))
            else:
                layout = list_layout(path, stream)
                blocks = [_text_block(block) for block in list_blocks(path, stream, layout)]
            sha256 = scan(stream)[0]  # last: what is no table may be huge
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror or error}; expected {EXPECTED}") from None
    except LandmarkError as error:  # of what reads both kinds of table
        raise SourceError(str(error)) from None
    if not sum(len(block.paths) for block in blocks):
        raise SourceError(f"{path}: no rows; expected {EXPECTED}")
    return _joined(blocks, sha256)


def _joined(blocks: Sequence[ImageTable], sha256: str) -> ImageTable:
    points = [block.points for block in blocks]
    splits = [block.splits for block in blocks]
    return ImageTable(
        paths=pa.concat_arrays([block.paths for block in blocks]),
        identities=pa.concat_arrays([block.identities for block in blocks]),
        splits=None if any(split is None for split in splits) else pa.concat_arrays(splits),
        points=None if any(point is None for point in points) else np.concatenate(points),  # type: ignore[arg-type]
        sha256=sha256,
    )


def _text_block(table: pa.Table) -> ImageTable:
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    identities = pc.utf8_trim_whitespace(columns[IDENTITY])
    points = None
    if POINT_NAMES[0] in columns:
        points = np.stack([float32(text_numbers(columns[name])) for name in POINT_NAMES], axis=1)
    return ImageTable(
        paths=pc.utf8_trim_whitespace(columns[PATH]),
        identities=pc.if_else(pc.equal(identities, ""), pa.scalar(None, pa.string()), identities),
        splits=pc.utf8_trim_whitespace(columns[SPLIT]) if SPLIT in columns else None,
        points=points,
        sha256="",
    )


def _json_blocks(path: Path, stream: BinaryIO) -> Iterator[ImageTable]:
    names: dict[str, str] = {}
    for line, block in line_blocks(path, stream):
        lines = enumerate(block.split(b"\n"), line)
        records = [_record(path, number, text) for number, text in lines if text.strip()]
        if records:
            fields = list(dict.fromkeys(field for record in records for field in record))  # a record may lack some
            names = names or dict(zip(_columns(path, fields), fields, strict=True))
            yield _records_block(records, names)


def _record(path: Path, number: int, text: bytes) -> dict[str, Any]:
    try:
        record = json.loads(text) if len(text) <= MAX_LABEL_BYTES else None
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise SourceError(f"{path}: line {number}: no JSON object; expected one a line")
    return record


def _columns(path: Path, names: Sequence[str]) -> list[str]:
    try:
        return known_columns(names)
    except ValueError as error:
        raise SourceError(f"{path}: {error}; found {', '.join(names)[:120]}, expected {EXPECTED}") from None


def _records_block(records: Sequence[dict[str, Any]], names: dict[str, str]) -> ImageTable:
    """Args: names: meaning -> field."""
    paths = [record.get(names[PATH]) for record in records]
    return ImageTable(
        paths=pa.array([path if isinstance(path, str) else "" for path in map(_clean, paths)], pa.string()),
        identities=pa.array([_clean(identity_text(record.get(names[IDENTITY]))) for record in records], pa.string()),
        splits=pa.array([str(_clean(record.get(names[SPLIT]))) for record in records]) if SPLIT in names else None,
        points=_record_points(records, names),
        sha256="",
    )


def _record_points(records: Sequence[dict[str, Any]], names: dict[str, str]) -> np.ndarray | None:
    if POINT_NAMES[0] in names:
        stated = [row_points([record.get(names[name]) for name in POINT_NAMES]) for record in records]
    elif field := next((field for field in POINT_FIELDS if field in names.values()), None):
        stated = [row_points(record.get(field)) for record in records]
    else:
        return None
    return float32(np.array([points or _NO_POINTS for points in stated], np.float64))


def _clean(value: Any) -> Any:
    """Text without lone surrogates, which JSON may have and Arrow refuses."""
    return valid_text(value) if isinstance(value, str) else value


def _parquet_blocks(path: Path, stream: BinaryIO) -> Iterator[ImageTable]:
    parquet_rows(path, stream)  # refuses more than the file can hold
    stream.seek(0)
    try:
        with pq.ParquetFile(stream, pre_buffer=False) as file:
            columns = dict(zip(_columns(path, file.schema_arrow.names), file.schema_arrow.names, strict=True))
            if pa.types.is_struct(file.schema_arrow.field(columns[PATH]).type):
                raise SourceError(
                    f"{path}: its column {columns[PATH]} holds the images themselves; save them as files first, and name"
                    " their paths"
                )
            wanted = [name for meaning, name in columns.items() if not meaning.isdecimal() or name in POINT_FIELDS]
            for batch in parquet_batches(file, wanted):
                yield _records_block(batch.to_pylist(), columns)
    except PARQUET_ERRORS as error:
        raise SourceError(f"{path}: damaged ({first_line(error)}); expected a Parquet table of images") from None
