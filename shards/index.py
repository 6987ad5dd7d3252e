"""ShardIndex: where every stored image lies, by identity; and the bytes themselves."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from shards.errors import ShardError
from shards.files import quick_digest
from shards.schema import INDEX, INDEX_SCHEMA, Manifest, shard_file

_PLACE = ["label", "shard", "offset", "size", "xxh3"]
_AT_ONCE = 1 << 16  # rows read
_OTHER_FILES = 512  # descriptors left to everybody else


class ShardIndex:
    """The index of a finished shard set in memory: 28 bytes an image, images of an identity side by side.

    Attributes:
        root: the folder.  manifest: its manifest.
        labels: (I,) int32, the labels that have at least one image, ascending.
        first, count: (I,) int64, first row and number of rows of each of those labels.
        label, shard, offset, size, xxh3: (N,) columns of ``index.parquet``.
    """

    def __init__(self, root: Path) -> None:
        """Raises: ShardError: not a finished shard set, or its index does not fit its manifest."""
        self.root, self.manifest = root, Manifest.read(root)
        path = root / INDEX
        try:
            if quick_digest(path) != self.manifest.index_digest:
                raise ShardError(
                    f"{path}: is not the index that the manifest names; run: python cli.py verify --full {root}"
                )
            self.label, self.shard, self.offset, self.size, self.xxh3 = _columns(path)
        except OSError as error:
            raise ShardError(f"{path}: {error.strerror or error}; run: python cli.py verify {root}") from None
        self.first = np.flatnonzero(np.diff(self.label, prepend=-1))
        self.labels, self.count = self.label[self.first], np.diff(self.first, append=len(self.label))

    def __len__(self) -> int:
        return len(self.label)

    def key(self, row: int) -> str:
        """The key of one row, read from disk when asked for: keys are only needed in messages and reports."""
        reader = pq.ParquetFile(self.root / INDEX)
        for group in range(reader.num_row_groups):
            rows = reader.metadata.row_group(group).num_rows
            if row < rows:
                return str(reader.read_row_group(group, columns=["key"])["key"][row].as_py())
            row -= rows
        raise IndexError(row)


def _columns(path: Path) -> list[np.ndarray]:
    """The ``_PLACE`` columns of an index; beside them no more than a row group is in memory."""
    with pq.ParquetFile(path, pre_buffer=False) as reader:
        fields = [INDEX_SCHEMA.field(name) for name in _PLACE]
        columns = [np.empty(reader.metadata.num_rows, field.type.to_pandas_dtype()) for field in fields]
        start = 0
        for rows in reader.iter_batches(_AT_ONCE, columns=_PLACE, use_threads=False):
            for column, values in zip(columns, rows.columns, strict=True):
                column[start : start + len(rows)] = np.from_dlpack(values)  # to_numpy() imports pandas: 45 MB, 0.3 s
            start += len(rows)
    pa.default_memory_pool().release_unused()
    return columns


class ShardReader:
    """Reads images by index row with ``pread``; keeps one open file a shard. A context manager."""

    def __init__(self, index: ShardIndex) -> None:
        self._index = index
        self._handles: dict[int, int] = {}
        self._limit = _allow_open_files(index.manifest.shards)

    def __enter__(self) -> ShardReader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes every shard; reading reopens them."""
        while self._handles:
            os.close(self._handles.popitem()[1])

    def padded(self, rows: np.ndarray, room: np.ndarray | None = None) -> np.ndarray:
        """The JPEGs of ``rows`` (N,) as one zero-padded uint8 array (N, longest), checked.

        Args:
            room: (R,) uint8 whose beginning becomes the result: memory that is there already costs no page faults.

        Raises:
            ShardError: a shard is missing or too short, or an image does not match its xxh3.
        """
        index = self._index
        places = (index.shard[rows], index.offset[rows], index.size[rows], index.xxh3[rows])
        longest = int(places[2].max())
        everything = np.empty(len(rows) * longest, np.uint8) if room is None else room[: len(rows) * longest]
        start, whole, zeros = 0, everything.data, bytes(longest)
        for row, shard, offset, size, xxh3 in zip(rows.tolist(), *(column.tolist() for column in places), strict=True):
            view = whole[start : start + size]
            got = os.preadv(self._handle(shard), [view], offset)
            if got != size or xxhash.xxh3_64_intdigest(view) != xxh3:
                raise self._damaged(row)
            whole[start + size : start + longest] = zeros[size:]
            start += longest
        return everything.reshape(len(rows), longest)

    def image(self, row: int) -> bytes:
        """The JPEG of one row, checked. Raises: ShardError: as ``padded``."""
        return self.padded(np.array([row]))[0].tobytes()

    def _damaged(self, row: int) -> ShardError:
        index = self._index
        return ShardError(
            f"{index.root / shard_file(int(index.shard[row]), 'tar')}: image {index.key(row)} at byte {int(index.offset[row])}"
            f" is damaged (its xxh3 does not match); run: python cli.py verify --full {index.root}"
        )

    def _handle(self, shard: int) -> int:
        if shard not in self._handles:
            if len(self._handles) >= self._limit:
                os.close(self._handles.pop(next(iter(self._handles))))
            path = self._index.root / shard_file(shard, "tar")
            try:
                handle = os.open(path, os.O_RDONLY)
            except OSError as error:
                raise ShardError(f"{path}: {error.strerror}; run: python cli.py verify {self._index.root}") from None
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_RANDOM)  # read-ahead fetched many times the bytes wanted
            self._handles[shard] = handle
        return self._handles[shard]


def _allow_open_files(wanted: int) -> int:
    """Raises this process's limit so that ``wanted`` shards can be open; returns how many really can."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = wanted + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < need:
        soft = need if hard == resource.RLIM_INFINITY else min(need, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else max(min(wanted, soft - _OTHER_FILES), 1)
