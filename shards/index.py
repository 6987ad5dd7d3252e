"""ShardIndex: the position of every stored image, sorted by identity. ShardReader: the images themselves."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from shards.errors import ShardError
from shards.files import quick_digest
from shards.schema import INDEX, INDEX_SCHEMA, Manifest, shard_file

COLUMNS = ["label", "shard", "offset", "size", "xxh3"]
CHUNK_ROWS = 1 << 16
RESERVED_FILES = 256  # file descriptors left to the rest of the process


class ShardIndex:
    """The index of a finished shard set in memory, sorted by label; 28 bytes per image.

    Attributes:
        root: the set's folder.
        manifest: the set's manifest.
        labels: (I,) int32, labels with at least one image, ascending.
        first: (I,) int64, first row of each label.
        count: (I,) int64, number of rows of each label.
        label: (N,) int32, label of each row.
        shard: (N,) int32, number of its shard.
        offset: (N,) int64, position of its JPEG in the tar, bytes.
        size: (N,) int32, bytes of its JPEG.
        xxh3: (N,) uint64, hash of its JPEG.
    """

    def __init__(self, root: Path) -> None:
        """Opens the set in the folder ``root``.

        Raises:
            ShardError: not a finished shard set, or the index does not match the manifest.
        """
        self.root, self.manifest = root, Manifest.read(root)
        path = root / INDEX
        try:
            if quick_digest(path) != self.manifest.index_digest:
                raise ShardError(f"{path}: does not match the manifest; run: python cli.py verify --full {root}")
            self.label, self.shard, self.offset, self.size, self.xxh3 = _columns(path)
        except OSError as error:
            raise ShardError(f"{path}: {error.strerror or error}; run: python cli.py verify {root}") from None
        self.first = np.flatnonzero(np.diff(self.label, prepend=-1))
        self.labels, self.count = self.label[self.first], np.diff(self.first, append=len(self.label))

    def __len__(self) -> int:
        return len(self.label)

    def key(self, row: int) -> str:
        """Returns the key of one row, read from disk: only messages and reports need keys."""
        reader = pq.ParquetFile(self.root / INDEX)
        for group in range(reader.num_row_groups):
            rows = reader.metadata.row_group(group).num_rows
            if row < rows:
                return str(reader.read_row_group(group, columns=["key"])["key"][row].as_py())
            row -= rows
        raise IndexError(row)


def _columns(path: Path) -> list[np.ndarray]:
    """Reads ``COLUMNS`` of an index in chunks, which needs little memory besides the result."""
    with pq.ParquetFile(path, pre_buffer=False) as reader:
        fields = [INDEX_SCHEMA.field(name) for name in COLUMNS]
        columns = [np.empty(reader.metadata.num_rows, field.type.to_pandas_dtype()) for field in fields]
        start = 0
        for rows in reader.iter_batches(CHUNK_ROWS, columns=COLUMNS, use_threads=False):
            for column, values in zip(columns, rows.columns, strict=True):
                column[start : start + len(rows)] = np.from_dlpack(values)  # to_numpy() imports pandas (45 MB, 0.3 s)
            start += len(rows)
    pa.default_memory_pool().release_unused()
    return columns


class ShardReader:
    """Reads images by index row; a context manager. Keeps shards open, up to the process's limit of open files."""

    def __init__(self, index: ShardIndex) -> None:
        self._index = index
        self._handles: dict[int, int] = {}
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._max_open = sys.maxsize if soft == resource.RLIM_INFINITY else max(soft - RESERVED_FILES, 1)

    def __enter__(self) -> ShardReader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes all shards; a later read opens them again."""
        while self._handles:
            os.close(self._handles.popitem()[1])

    def padded(self, rows: np.ndarray, buffer: np.ndarray | None = None) -> np.ndarray:
        """Reads and checks the JPEGs of several rows.

        Args:
            rows: (N,) rows of the index.
            buffer: (R,) uint8, memory for the result; None allocates it, which costs page faults.

        Returns:
            (N, longest) uint8, padded with zeros.

        Raises:
            ShardError: a shard is missing or truncated, or an image does not match its xxh3.
        """
        index = self._index
        columns = (index.shard[rows], index.offset[rows], index.size[rows], index.xxh3[rows])
        longest = int(columns[2].max())
        padded = np.empty(len(rows) * longest, np.uint8) if buffer is None else buffer[: len(rows) * longest]
        start, memory, zeros = 0, padded.data, bytes(longest)
        for row, shard, offset, size, xxh3 in zip(rows.tolist(), *(column.tolist() for column in columns), strict=True):
            view = memory[start : start + size]
            got = os.preadv(self._handle(shard), [view], offset)
            if got != size:
                raise self._damaged(row, f"truncated: got {got} of {size} bytes")
            if xxhash.xxh3_64_intdigest(view) != xxh3:
                raise self._damaged(row, "damaged: its xxh3 does not match")
            memory[start + size : start + longest] = zeros[size:]
            start += longest
        return padded.reshape(len(rows), longest)

    def image(self, row: int) -> bytes:
        """Reads and checks the JPEG of one row.

        Raises:
            ShardError: see ``padded``.
        """
        return self.padded(np.array([row]))[0].tobytes()

    def _damaged(self, row: int, problem: str) -> ShardError:
        index = self._index
        return ShardError(
            f"{index.root / shard_file(int(index.shard[row]), 'tar')}: image {index.key(row)} at byte"
            f" {int(index.offset[row])} is {problem}; run: python cli.py verify --full {index.root}"
        )

    def _handle(self, shard: int) -> int:
        if shard not in self._handles:
            if len(self._handles) >= self._max_open:
                os.close(self._handles.pop(next(iter(self._handles))))
            path = self._index.root / shard_file(shard, "tar")
            try:
                handle = os.open(path, os.O_RDONLY)
            except OSError as error:
                raise ShardError(f"{path}: {error.strerror}; run: python cli.py verify {self._index.root}") from None
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_RANDOM)  # read-ahead would fetch many times the bytes needed
            self._handles[shard] = handle
        return self._handles[shard]
