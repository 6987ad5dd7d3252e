"""Reads tables of embeddings, block by block. Everything is validated, because a file may come from anywhere."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.errors import SearchError
from shards.arguments import check_path
from shards.files import StrPath, open_regular
from shards.schema import STATUS_OK
from shards.tables import PARQUET_ERRORS

MAX_LENGTH = 1 << 14  # numbers in an embedding
BLOCK_BYTES = 1 << 23  # of embeddings that are decoded at a time
MAX_BLOCK_ROWS, FIRST_ROWS = 4096, 64
NAME_ROWS = 1 << 16  # rows of text that are read at a time
UNIT_TOLERANCE = 1e-3
EXPECTED = "expected a file written by embed"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
    """Some consecutive rows of a table.

    Attributes:
        start: number of the first row.
        vectors: (N, D) float32 of unit length, of the usable rows.
        rows: (N,) int64 numbers of the usable rows.
        paths: (R,) of all rows.
        status: (R,) of all rows.
    """

    start: int
    vectors: np.ndarray
    rows: np.ndarray
    paths: pa.Array
    status: pa.Array


class EmbeddingTable:
    """A Parquet file of embeddings; a context manager.

    The file stays open, so that all passes read the same one.

    Attributes:
        path: the file.
        rows: number of its rows, the unusable ones included.
        length: numbers in an embedding, D.
        metadata: what ``embed`` says of the network and of the images.
        has_identities: whether there is a column ``identity``.

    Raises:
        SearchError: the file is not such a table, or no row has an embedding.
        TypeError: ``path`` is not a path.
    """

    def __init__(self, path: StrPath) -> None:
        self.path = check_path("path", path)
        self._files = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            with self._reading():
                # PyArrow would take a path with a colon for a URI; a small buffer instead of whole column chunks
                stream = self._files.enter_context(open_regular(self.path))
                self._file = pq.ParquetFile(
                    stream, pre_buffer=False, buffer_size=1 << 20, page_checksum_verification=True
                )
                self._files.callback(self._file.close)
                schema = self._file.schema_arrow
            self.rows = self._file.metadata.num_rows
            self._check_columns(schema)
            self.has_identities = "identity" in schema.names
            self.metadata = self._read_metadata(schema)
            self.length = self._find_length()
        except BaseException:
            self._files.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()

    def blocks(self) -> Iterator[Block]:
        """Yields all rows in order. Raises: SearchError: a row is invalid; the message names it."""
        yield from self._blocks(max(min(BLOCK_BYTES // (4 * self.length), MAX_BLOCK_ROWS), 1))

    def _blocks(self, size: int) -> Iterator[Block]:
        start = 0
        for batch in self._batches(["path", "embedding", "status"], size):
            paths, status = (self._text(batch, name, start) for name in ("path", "status"))
            vectors, rows = self._vectors(batch.column("embedding"), pc.equal(status, STATUS_OK), paths, start)
            yield Block(start=start, vectors=vectors, rows=rows, paths=paths, status=status)
            start += batch.num_rows

    def paths(self) -> Iterator[tuple[int, pa.Array]]:
        """Yields the paths of all rows, in blocks with the number of their first row."""
        start = 0
        for batch in self._batches(["path"], NAME_ROWS):
            yield start, self._text(batch, "path", start)
            start += batch.num_rows

    def texts(self, columns: list[str], rows: np.ndarray) -> pa.Table:
        """Text columns of some rows.

        Args:
            columns: those that the file lacks are null.
            rows: (N,) int64, sorted, each once.
        """
        found = [name for name in columns if name in self._file.schema_arrow.names]
        parts, start = [], 0
        for batch in self._batches(found, NAME_ROWS):
            inside = rows[np.searchsorted(rows, start) : np.searchsorted(rows, start + batch.num_rows)] - start
            if len(inside):
                taken = batch.take(pa.array(inside))
                part = [self._text(taken, name, start, nullable=True) for name in found]
                parts.append(pa.table(part, names=found))
            start += batch.num_rows
        table = pa.concat_tables(parts) if parts else pa.table([pa.array([], pa.string())] * len(found), names=found)
        for name in columns:
            if name not in found:
                table = table.append_column(name, pa.nulls(len(table), pa.string()))
        return table.select(columns)

    def vectors_of(self, rows: np.ndarray) -> np.ndarray:
        """(N, D) float32 embeddings of usable rows (N,), sorted, each once."""
        found = [block.vectors[np.isin(block.rows, rows, assume_unique=True)] for block in self.blocks()]
        return np.concatenate(found)

    def _batches(self, columns: list[str], size: int) -> Iterator[pa.RecordBatch]:
        with self._reading():
            batches = self._file.iter_batches(batch_size=size, columns=columns, use_threads=False)
        while True:
            with self._reading():
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Raises: SearchError: for errors of PyArrow and of the file system in the block."""
        try:
            yield
        except MemoryError as error:
            raise MemoryError(f"{self.path}: {error}") from None
        except PARQUET_ERRORS as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            reason = ascii((reason.splitlines() or [type(error).__name__])[0])[1:-1][:160]
            raise SearchError(f"{self.path}: cannot be read ({reason}); {EXPECTED}") from None

    def _check_columns(self, schema: pa.Schema) -> None:
        for name, good, expected in (
            ("path", _is_text, "text"),
            ("embedding", _is_vectors, "lists of float32"),
            ("status", _is_text, "text"),
            ("identity", _is_text, "text"),
        ):
            if schema.names.count(name) > 1 or (name in schema.names and not good(schema.field(name).type)):
                found = " and ".join(str(field.type) for field in schema if field.name == name)[:80]
                raise SearchError(f"{self.path}: column {name} holds {found}, expected {expected}; {EXPECTED}")
            if name not in schema.names and name != "identity":
                raise SearchError(f"{self.path}: no column {name}; {EXPECTED}")
        if not self.rows:
            raise SearchError(f"{self.path}: has no rows; {EXPECTED}")

    def _read_metadata(self, schema: pa.Schema) -> dict[str, str]:
        raw = schema.metadata or {}
        metadata = {key.decode("utf-8", "replace"): value.decode("utf-8", "replace") for key, value in raw.items()}
        if not metadata.get("digest"):
            raise SearchError(
                f"{self.path}: does not say which network embedded it; {EXPECTED} (pandas drops that when it saves a"
                " table: add columns with PyArrow)"
            )
        return metadata

    def _find_length(self) -> int:
        """The length of the first embedding: of the first row if possible, as a file may have lists of any length."""
        self.length = 0
        for block in itertools.chain(itertools.islice(self._blocks(1), 1), self._blocks(FIRST_ROWS)):
            if len(block.rows):
                return block.vectors.shape[1]
        raise SearchError(f"{self.path}: no row has an embedding; see its columns status and error_message")

    def _text(self, batch: pa.RecordBatch, name: str, start: int, *, nullable: bool = False) -> pa.Array:
        with self._reading():
            column = batch.column(name).cast(pa.string())
            column.validate(full=True)
        if column.null_count and not nullable:
            row = start + column.is_null().index(True).as_py()
            raise SearchError(f"{self.path}: row {row} has no {name}; {EXPECTED}")
        return column

    def _vectors(
        self, column: pa.Array, good: pa.BooleanArray, paths: pa.Array, start: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """(N, D) embeddings of the usable rows of a batch, and the (N,) numbers of these rows."""
        usable = pc.and_(good, column.is_valid()).to_numpy(zero_copy_only=False)
        rows = np.flatnonzero(usable)
        with self._reading():
            column = column if usable.all() else column.take(pa.array(rows))
            lengths = (
                np.full(len(rows), column.type.list_size)
                if pa.types.is_fixed_size_list(column.type)
                else pc.list_value_length(column).to_numpy()
            )
            values = column.flatten().cast(pa.float32(), safe=False)
        if not self.length and len(rows):
            self.length = int(lengths[0])
        if not 0 < self.length <= MAX_LENGTH and len(rows):
            raise SearchError(
                f"{self._row(paths, rows[0], start)} has an embedding of {self.length:,} numbers; {EXPECTED}"
            )
        if (wrong := np.flatnonzero(lengths != self.length)).size:
            raise SearchError(
                f"{self._row(paths, rows[wrong[0]], start)} has an embedding of {lengths[wrong[0]]:,} numbers, others of"
                f" {self.length:,}; {EXPECTED}"
            )
        if values.null_count:
            row = rows[values.is_null().index(True).as_py() // self.length]
            raise SearchError(f"{self._row(paths, row, start)} has an embedding with missing numbers; {EXPECTED}")
        vectors = values.to_numpy().reshape(len(rows), self.length)
        self._check_unit(vectors, rows, paths, start)
        return vectors, rows + start

    def _check_unit(self, vectors: np.ndarray, rows: np.ndarray, paths: pa.Array, start: int) -> None:
        norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
        wrong = np.flatnonzero(~(np.abs(norms - 1) <= UNIT_TOLERANCE))  # also NaN
        if wrong.size:
            first = wrong[0]
            finite = np.isfinite(vectors[first]).all()
            found = f"has length {norms[first]:.3g}, expected 1" if finite else "is not finite"
            raise SearchError(f"{self._row(paths, rows[first], start)}: the embedding {found}; {EXPECTED}")

    def _row(self, paths: pa.Array, row: int, start: int) -> str:
        return f"{self.path}: row {start + row} ({paths[int(row)].as_py()})"


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _is_vectors(kind: pa.DataType) -> bool:
    types = pa.types
    lists = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return lists and types.is_floating(kind.value_type)
