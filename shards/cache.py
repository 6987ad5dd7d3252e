"""CachedSet: a shard set in an object store, whose tars are cached in a local folder when they are needed.

The folder holds the manifest, the index and the cached tars. A ``ShardIndex`` opens it as any other set; a ``ShardReader``
requests a tar before it opens it. Threads fetch requested tars, the most urgent first.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from shards.arguments import check_argument, check_path, check_whole, shown
from shards.cache_folder import CacheFolder, as_bytes, size_text
from shards.errors import ShardError
from shards.fetch_queue import NOW, POLL_S, FetchQueue
from shards.files import MAX_RECORD_BYTES, StrPath, regular_handle, write_bytes
from shards.index import ShardIndex
from shards.schema import DONE_SUFFIX, INDEX, MANIFEST, Manifest, shard_file
from shards.store import Store, naming_store
from shards.stored_set import not_a_set

MIN_TARS = 4  # that the cache must hold
TOUCH_S = 60.0  # between two looks at whether a tar is there, which also note its use
_BLOCK = 512  # of a tar


class CachedSet:
    """A shard set in an object store, read through a local cache of its tars.

    A context manager that yields a ``ShardIndex``; several threads may use it. A tar that arrives is compared with the
    SHA-256 of the manifest's records and then renamed to its final name: a tar with this name and the right size is whole.
    The hash of each image shows later damage; the tar is then fetched again.

    Attributes:
        store: where the set is.
        folder: the cache, which other sets and other processes may share.
        tar_bytes: (shards,) int64, bytes of each tar.
    """

    tar_bytes: np.ndarray

    def __init__(self, url: str | Store, *, folder: StrPath, size: int | str | None = None) -> None:
        """
        Args:
            url: of the set, such as ``s3://bucket/faces``.
            folder: of the cache, on a disk of this machine; made if need be.
            size: limit of its bytes, for all its sets together, a number or a text such as ``50G``; the least recently used
                tars are deleted. None: 90 % of what it holds and what is free on its disk.

        Raises:
            TypeError, ValueError: an argument of a wrong type or value.
            StoreError: ``url`` is not a URL of a store.
        """
        check_argument(isinstance(url, str | Store), "url", url, "a URL such as s3://bucket/faces")
        self.store = url if isinstance(url, Store) else Store(url)
        self._path = check_path("folder", folder)
        self._size = size if size is None else check_whole("size", as_bytes(size) if isinstance(size, str) else size, 1)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> ShardIndex:
        """Opens the set; copies manifest and index unless they are there.

        Raises:
            ShardError: no finished shard set, or the cache is too small for it.
            StoreError: the store cannot be used.
            OSError: the cache cannot be written.
        """
        with contextlib.ExitStack() as stack:
            self._queue = FetchQueue(self._fetch)
            found = self.store.read(MANIFEST, MAX_RECORD_BYTES)
            if found is None or found[1] is None:
                raise not_a_set(self.store, self.store.list())
            self.folder = CacheFolder(self._path, self._size)
            digest = hashlib.sha256(found[1]).hexdigest()
            self._root = stack.enter_context(self.folder.opened_set(self.store.folder_name, digest))
            path = self._root / MANIFEST
            if not (path.exists() and path.read_bytes() == found[1]):
                write_bytes(path, found[1])
            index = self._opened_index()
            self.tar_bytes = _tar_bytes(index)
            self._check_size()
            self._seen = np.full(index.manifest.shards, -np.inf)  # when each tar was last seen to be there
            self._manifest = index.manifest
            index.cache = self
            stack.callback(self._queue.close)
            self._stack = stack.pop_all()
        return index

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _opened_index(self) -> ShardIndex:
        path = self._root / INDEX
        with naming_store(self._root, self.store.url, ShardError):
            facts = Manifest.read(self._root).files[INDEX]
            self._bring_index(path, facts)
            with contextlib.suppress(ShardError):
                return ShardIndex(self._root)
            path.unlink(missing_ok=True)  # it may have changed since it was fetched
            self._bring_index(path, facts)
            return ShardIndex(self._root)

    def _bring_index(self, path: Path, facts: dict[str, Any]) -> None:
        while not path.exists():
            if not self._fetched(path, lambda: facts, facts["size"]):
                time.sleep(POLL_S)  # another process is at it

    def _check_size(self) -> None:
        """Raises: ShardError: the cache holds only few tars."""
        needed = MIN_TARS * int(self.tar_bytes.max()) + self.other_bytes
        if self.folder.size < needed:
            raise ShardError(
                f"{self.folder.path}: the cache has room for {size_text(self.folder.size)}, but needs"
                f" {size_text(needed)} for {MIN_TARS} tars of {self.store} and its index; raise --cache-size, or choose"
                " a --cache-folder on a larger disk"
            )

    @property
    def other_bytes(self) -> int:
        """Bytes of the cached files that are not tars."""
        return sum(path.stat().st_size for path in self._root.iterdir() if not path.name.startswith("shard-"))

    @property
    def needed_bytes(self) -> int:
        """The size of a cache that holds the whole set."""
        return int(self.tar_bytes.sum()) + self.other_bytes

    @property
    def holds_all(self) -> bool:
        """True if the whole set fits into the cache."""
        return self.needed_bytes <= self.folder.size

    def missing(self) -> np.ndarray:
        """(shards,) bool, True for tars that are not cached."""
        there = np.zeros(len(self.tar_bytes), bool)
        names = {shard_file(shard, "tar"): shard for shard in range(len(there))}
        there[[names[name] for name in os.listdir(self._root) if name in names]] = True
        return ~there

    def want(self, shards: np.ndarray, order: int = NOW) -> None:
        """Requests tars that are not cached, and marks the others as used.

        Args:
            shards: their numbers, which may repeat.
            order: the smaller, the sooner they are needed.
        """
        shards, now = np.unique(shards), time.monotonic()
        for shard in shards[self._seen[shards] < now - TOUCH_S].tolist():
            try:
                with contextlib.suppress(PermissionError):  # another user's
                    os.utime(self._tar(shard))
                self._seen[shard] = now
            except FileNotFoundError:
                self._queue.add(shard, order)

    def open(self, shard: int, cancelled: Callable[[], bool]) -> int:
        """Opens a tar for reading; waits until it is cached.

        Raises:
            ShardError: it cannot be used.
            StoreError: it cannot be fetched.
            OSError: it cannot be written or read.
            RuntimeError: the set is closed, or ``cancelled`` meanwhile.
        """
        path = self._tar(shard)
        while True:
            try:
                handle = regular_handle(path)
            except FileNotFoundError:
                self._seen[shard] = -np.inf
                if not self._queue.wait(shard, cancelled):
                    raise RuntimeError(f"{self.store}: was closed while a tar was on its way") from None
                continue
            if os.fstat(handle).st_size == self.tar_bytes[shard]:
                return handle
            self.drop(shard, handle)
            os.close(handle)

    def drop(self, shard: int, handle: int) -> None:
        """Deletes an open tar that is damaged, unless it has been replaced."""
        self.folder.drop(self._tar(shard), handle)
        self._seen[shard] = -np.inf

    def version(self) -> int:
        """A number that changes when a tar comes or goes."""
        return self._root.stat().st_mtime_ns

    def _fetch(self, shard: int) -> bool:
        tar, size = self._tar(shard), int(self.tar_bytes[shard])
        return self._fetched(tar, lambda: self._facts(shard), size)

    def _fetched(self, path: Path, facts: Callable[[], dict[str, Any]], size: int) -> bool:
        """Fetches a file unless it is there; returns False if that must wait, for another process or for room."""
        stream = self.folder.claim(path, size)
        if stream is None:
            return path.exists()
        try:
            self.store.fetch_into(path.name, stream, facts(), self._queue.check_open)
            self.folder.publish(path, stream)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise ShardError(
                f"{self.folder.path}: no space left on its disk ({error.strerror}); free some, lower --cache-size, or"
                " choose a --cache-folder on another disk"
            ) from None
        finally:
            if not stream.closed:
                self.folder.abandon(path, stream)
        return True

    def _facts(self, shard: int) -> dict[str, Any]:
        """Size and hashes of a tar, from its record, which the manifest vouches for."""
        name, record = shard_file(shard, DONE_SUFFIX), io.BytesIO()
        if (stated := self._manifest.files[name]["size"]) > MAX_RECORD_BYTES:
            raise ShardError(f"{self.store}/{name}: {size_text(stated)}, which no record has; build the set again")
        self.store.fetch_into(name, record, self._manifest.files[name])
        try:
            facts: dict[str, Any] = json.loads(record.getvalue())["files"][shard_file(shard, "tar")]
            size, sha256 = facts["size"], facts["sha256"]
        except (ValueError, KeyError, TypeError, RecursionError):
            size = sha256 = None
        if not isinstance(sha256, str):
            raise ShardError(f"{self.store}/{name}: states no SHA-256 of its tar; build the set again")
        if size != self.tar_bytes[shard]:
            stated = f"states {shown(size)} bytes for its tar, by the index it has {self.tar_bytes[shard]}"
            raise ShardError(f"{self.store}/{name}: {stated}; build the set again")
        return facts

    def _tar(self, shard: int) -> Path:
        return self._root / shard_file(shard, "tar")


def _tar_bytes(index: ShardIndex) -> np.ndarray:
    """(shards,) int64, bytes of the tars: of each image a header, its blocks, and header and block of its label."""
    total = np.full(index.manifest.shards, 2 * _BLOCK, np.int64)
    for start in range(0, len(index), 1 << 20):  # little memory beside the result
        rows = slice(start, start + (1 << 20))
        blocks = -(-index.size[rows].astype(np.int64) // _BLOCK) + 3
        total += (np.bincount(index.shard[rows], blocks, len(total)) * _BLOCK).astype(np.int64)
    return total
