"""ShardIndex: the position of every stored image, sorted by identity. ShardReader: the images themselves."""

from __future__ import annotations

import os
import re
import resource
import sys
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import xxhash

from shards.arguments import check_argument, check_path, check_whole
from shards.column_file import open_columns
from shards.errors import ShardError
from shards.files import StrPath, regular_handle
from shards.messages import command, counted
from shards.schema import INDEX, INDEX_SCHEMA, Manifest, shard_file
from shards.tables import open_table

if TYPE_CHECKING:
    from shards.cache import CachedSet

EXPECTED_INDEX = "a ShardIndex, such as ShardIndex('data/shards')"
RESERVED_FILES = 256  # file descriptors left to the rest of the process


class ShardIndex:
    """The index of a finished shard set, sorted by label; 28 bytes per image.

    The arrays are in memory. From ``MAPPED_ROWS`` images on they are read-only and mapped from a file in the user's cache
    folder (``$XDG_CACHE_HOME/lrfr`` or ``~/.cache/lrfr``), which all processes of a machine share.

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
        cache: fetches the tars of a set that is in an object store; None for a folder.
    """

    cache: CachedSet | None = None

    def __init__(self, root: StrPath) -> None:
        """Opens the set in the folder ``root``.

        Raises:
            ShardError: not a finished shard set, or the index is invalid or does not match the manifest.
            TypeError: ``root`` is not a path.
        """
        root = check_path("root", root)
        if re.match(r"\w+:/", str(root)) and not root.exists():
            raise ShardError(f"{root}: a URL, expected a folder; shards.cache.CachedSet opens a set in an object store")
        self.root, self.manifest = root, Manifest.read(root)
        path = root / INDEX
        if path.exists() and not path.is_file():  # a pipe would block
            raise ShardError(f"{path}: not a regular file; run: {command('verify', root)}")
        columns = open_columns(path, self.manifest)
        self.label, self.shard, self.offset = columns.label, columns.shard, columns.offset
        self.size, self.xxh3 = columns.size, columns.xxh3
        self.labels, self.first, self.count = columns.labels, columns.first, columns.count
        if len(self.labels) != (stated := self.manifest.identities - self.manifest.empty_identities):
            raise ShardError(
                f"{path}: {counted(len(self.labels), 'identity')}, the manifest states {stated}; build again"
            )

    def __len__(self) -> int:
        return len(self.label)

    def __repr__(self) -> str:
        images, identities = counted(len(self), "image"), counted(len(self.labels), "identity")
        return f"ShardIndex({str(self.root)!r}: {images} of {identities}, {counted(self.manifest.shards, 'tar')})"

    @property
    def place(self) -> str:
        """The folder of the set, or its URL: for messages."""
        return self.cache.store.url if self.cache else str(self.root)

    def checked_row(self, row: int) -> int:
        """Returns ``row`` as an int. Raises: IndexError, TypeError: it is not a row of the index."""
        row = check_whole("row", row)
        if not 0 <= row < len(self):
            raise IndexError(f"row {row}: the index has {counted(len(self), 'row')}")
        return row

    def key(self, row: int) -> str:
        """Returns the key of one row, read from disk: only messages and reports need keys.

        Raises:
            IndexError, TypeError: ``row`` is not a row of the index.
            ShardError: the file of the index is another one than when the set was opened, or damaged.
        """
        row = self.checked_row(row)
        with open_table(self.root / INDEX, pa.schema([INDEX_SCHEMA.field("key")])) as reader:
            for group in range(reader.num_row_groups):
                rows = reader.metadata.row_group(group).num_rows
                if row < rows:
                    key = reader.read_row_group(group, columns=["key"], use_threads=False)["key"][row]
                    return bytes(key.as_buffer()).decode(errors="backslashreplace")
                row -= rows
        raise ShardError(f"{self.root / INDEX}: changed while it was open; open the set again")


class ShardReader:
    """Reads images by index row; a context manager. Keeps shards open, up to the process's limit of open files."""

    def __init__(self, index: ShardIndex) -> None:
        """Raises: TypeError: ``index`` is not a ``ShardIndex``."""
        check_argument(isinstance(index, ShardIndex), "index", index, EXPECTED_INDEX)
        self._index = index
        self._handles: dict[int, int] = {}
        self._left = False  # its with block
        self._cancelled = False
        self._version = 0  # of the cache, when handles of deleted tars were last closed
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._max_open = sys.maxsize if soft == resource.RLIM_INFINITY else max(soft - RESERVED_FILES, 1)

    def __repr__(self) -> str:
        return f"ShardReader({self._index!r})"

    def __enter__(self) -> ShardReader:
        self._left = self._cancelled = False
        return self

    def __exit__(self, *error: object) -> None:
        self._left = True
        self.close()

    def close(self) -> None:
        """Closes all shards; a later read opens them again."""
        while self._handles:
            os.close(self._handles.popitem()[1])

    def cancel(self) -> None:
        """Ends the wait of another thread for a tar that is on its way from a store, with a RuntimeError."""
        self._cancelled = True

    def padded(self, rows: np.ndarray, buffer: np.ndarray | None = None, longest: int | None = None) -> np.ndarray:
        """Reads and checks the JPEGs of several rows.

        Args:
            rows: (N,) rows of the index.
            buffer: (R,) uint8, memory for the result; None allocates it, which costs page faults.
            longest: bytes for each image; default: those of the longest.

        Returns:
            (N, longest) uint8, padded with zeros.

        Raises:
            ShardError: a shard is missing or truncated, or an image does not match its xxh3; for a set in an object
                store, even after the shard was fetched again.
            StoreError: a shard cannot be fetched.
            IndexError, TypeError: ``rows`` are not rows of the index, or ``buffer`` is no array of bytes.
            ValueError: ``buffer`` or ``longest`` is too small.
            RuntimeError: after the ``with`` block.
        """
        if self._left:
            raise RuntimeError("the reader is closed: read in its with block: with ShardReader(index) as reader: ...")
        index = self._index
        self._check_rows(rows)
        columns = (index.shard[rows], index.offset[rows], index.size[rows], index.xxh3[rows])
        needed = int(columns[2].max())
        longest = check_whole("longest", longest, needed) if longest is not None else needed
        if buffer is not None:
            _check_buffer(buffer, len(rows) * longest)
        padded = np.empty(len(rows) * longest, np.uint8) if buffer is None else buffer[: len(rows) * longest]
        if index.cache:
            self._prepare(index.cache, columns[0])
        if 1 < len(rows) <= self._max_open:  # the kernel reads them from the disk together, not one after another
            for shard, offset, size in zip(*(column.tolist() for column in columns[:3]), strict=True):
                os.posix_fadvise(self._handle(shard), offset, size, os.POSIX_FADV_WILLNEED)
        start, memory, zeros = 0, padded.data, bytes(longest)
        for row, shard, offset, size, xxh3 in zip(rows.tolist(), *(column.tolist() for column in columns), strict=True):
            view = memory[start : start + size]
            problem = self._read(shard, view, offset, xxh3)
            if problem and index.cache:
                index.cache.drop(shard, handle := self._handles.pop(shard))
                os.close(handle)
                problem = self._read(shard, view, offset, xxh3)
            if problem:
                raise self._damaged(row, problem)
            memory[start + size : start + longest] = zeros[size:]
            start += longest
        return padded.reshape(len(rows), longest)

    def _read(self, shard: int, view: memoryview, offset: int, xxh3: int) -> str:
        """Reads an image; returns what is wrong with it, if anything."""
        try:
            got = os.preadv(self._handle(shard), [view], offset)
        except OSError as error:  # of a dying disk or mount
            error.filename = error.filename or str(self._index.root / shard_file(shard, "tar"))
            raise
        if got != len(view):
            return f"truncated: got {got} of {len(view)} bytes"
        return "" if xxhash.xxh3_64_intdigest(view) == xxh3 else "damaged: its xxh3 does not match"

    def _prepare(self, cache: CachedSet, shards: np.ndarray) -> None:
        """Requests tars that are not cached, and closes those that the cache has deleted, which frees their disk."""
        cache.want(shards)
        if (version := cache.version()) == self._version:
            return
        self._version = version
        for shard, handle in list(self._handles.items()):
            if os.fstat(handle).st_nlink == 0:
                os.close(self._handles.pop(shard))

    def _check_rows(self, rows: np.ndarray) -> None:
        """Raises: IndexError, TypeError: they are not rows of the index."""
        good = isinstance(rows, np.ndarray) and rows.dtype.kind in "iu" and rows.ndim == 1 and len(rows) > 0
        check_argument(good, "rows", rows, "an array of one or several whole numbers")
        for row in (rows.min(), rows.max()):
            self._index.checked_row(row)

    def image(self, row: int) -> bytes:
        """Reads and checks the JPEG of one row.

        Raises:
            ShardError: see ``padded``.
            IndexError, TypeError: ``row`` is not a row of the index.
            RuntimeError: after the ``with`` block.
        """
        return self.padded(np.array([self._index.checked_row(row)]))[0].tobytes()

    def _damaged(self, row: int, problem: str) -> ShardError:
        index = self._index
        return ShardError(
            f"{index.place}/{shard_file(int(index.shard[row]), 'tar')}: image {index.key(row)} at byte"
            f" {int(index.offset[row])} is {problem}; run: {command('verify', '--full', index.place)}"
        )

    def _handle(self, shard: int) -> int:
        if shard not in self._handles:
            if len(self._handles) >= self._max_open:
                os.close(self._handles.pop(next(iter(self._handles))))
            handle = self._opened(shard)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_RANDOM)  # read-ahead would fetch many times the bytes needed
            self._handles[shard] = handle
        return self._handles[shard]

    def _opened(self, shard: int) -> int:
        index = self._index
        if index.cache:
            return index.cache.open(shard, lambda: self._cancelled)
        path = index.root / shard_file(shard, "tar")
        try:
            return regular_handle(path)
        except OSError as error:
            raise ShardError(f"{path}: {error.strerror}; run: {command('verify', index.root)}") from None


def _check_buffer(buffer: np.ndarray, needed: int) -> None:
    """Raises: TypeError: images cannot be read into it. ValueError: it has fewer than ``needed`` bytes."""
    good = isinstance(buffer, np.ndarray) and buffer.dtype == np.uint8 and buffer.ndim == 1
    good = good and buffer.flags.c_contiguous and buffer.flags.writeable
    check_argument(good, "buffer", buffer, "a writable, contiguous array of uint8 and shape (R,)")
    if len(buffer) < needed:
        raise ValueError(f"buffer has {counted(len(buffer), 'byte')}, expected at least {needed:,}")
