"""Reads the Parquet files of a shard set. Everything is validated, because a file may come from anywhere."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from shards.errors import ShardError
from shards.files import open_regular
from shards.messages import first_line

# PyArrow raises any of these on damaged files
PARQUET_ERRORS = (OSError, ValueError, TypeError, LookupError, OverflowError, pa.ArrowException)


@contextlib.contextmanager
def open_table(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetFile]:
    """Opens a Parquet file with at least the columns of ``schema``.

    Raises:
        ShardError: it is not such a file; also for errors of reading it in the block.
    """
    try:
        # PyArrow would take a path with a colon for a URI
        with open_regular(path) as stream, pq.ParquetFile(stream, pre_buffer=False) as reader:
            types = {field.name: field.type for field in reader.schema_arrow}
            for field in schema:
                if types.get(field.name) != field.type:
                    raise ShardError(
                        f"{path}: no column {field.name} of type {field.type}, unexpected for this format version;"
                        " build again into an empty --out"
                    )
            yield reader
    except (*PARQUET_ERRORS, MemoryError) as error:
        raise ShardError(
            f"{path}: cannot be read ({first_line(error, 160)}); build again into an empty --out"
        ) from None


def read_table(path: Path, schema: pa.Schema) -> pa.Table:
    """Reads the columns of ``schema``.

    Raises:
        ShardError: a column is missing or of another type, text is not UTF-8, or a value is missing.
    """
    with open_table(path, schema) as reader:
        table = reader.read(schema.names, use_threads=False).select(schema.names)
        table.validate(full=True)
        for field in schema:
            if not field.nullable and table[field.name].null_count:
                raise ShardError(f"{path}: {field.name} has no value in some rows; build again into an empty --out")
    return table
