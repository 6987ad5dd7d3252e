"""Source folders in an object store: listed once, and read by several requests at a time."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.images.decode import check_bytes
from pipeline.images.lookup import Entry, by_preference, composed, is_image
from pipeline.sources.listing import listed_rows
from pipeline.sources.source import Reader, Rows, Source, SourceError
from pipeline.sources.vggface2 import LandmarkSource
from pipeline.tables.landmark_table import LandmarkError
from shards.attempts import CONCURRENT
from shards.errors import ShardError
from shards.store import Store, naming_store

_AHEAD = 2 * CONCURRENT  # images


class StoredImages(Reader):
    """Reads images by the names of their objects."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None
        self._waiting: collections.deque[tuple[Any, concurrent.futures.Future[bytes]]] = collections.deque()
        self._next: Iterator[Any] = iter(())

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredImages, (self._store,)

    def expect(self, places: Sequence[Any]) -> None:
        """Images that will be read, in this order: some are requested ahead."""
        self._next = iter(places)

    def read(self, place: bytes, max_bytes: int | None = None) -> bytes:
        """Returns the content of an object, see ``Reader.read``. Raises: StoreError: the store cannot be used."""
        self._request(max_bytes)
        while self._waiting:
            expected, content = self._waiting.popleft()
            if expected == place:
                return content.result()
            content.cancel()  # it was not needed
            self._request(max_bytes)
        return self._content(place, max_bytes)

    def _request(self, max_bytes: int | None) -> None:
        self._pool = self._pool or concurrent.futures.ThreadPoolExecutor(CONCURRENT)
        while len(self._waiting) < _AHEAD and (place := next(self._next, None)) is not None:
            self._waiting.append((place, self._pool.submit(self._content, place, max_bytes)))

    def _content(self, place: bytes, max_bytes: int | None) -> bytes:
        found = self._store.read(os.fsdecode(place), max_bytes)
        if found is None:
            raise FileNotFoundError(f"no image {os.path.splitext(os.fsdecode(place))[0]} under {self._store}")
        size, data = found
        check_bytes(size, max_bytes)
        assert data is not None  # it is left out only if it is too large
        return data

    def close(self) -> None:
        """Ends requests that are waited for no more."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
        self._pool, self._next = None, iter(())
        self._waiting.clear()


class StoredRoot:
    """The folder of a source in a store. Its tables are copied to this machine, where the source finds them.

    Attributes:
        store: where the images are.
        folder: the copies.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self._names: list[str] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredRoot, (self.store, self.folder)  # without the listing: workers need none

    def begin(self, source: Source) -> None:
        """Lists the store, and copies the landmark tables of the source.

        Raises:
            SourceError: the source cannot be read from a store, or there is nothing.
            StoreError: the store cannot be used.
        """
        if not source.takes_store:
            raise SourceError(f"--source {source.name} reads a folder of this machine: copy or mount {self.store}")
        names = self.store.list()
        self._names = list(names)
        if not self._names:
            raise SourceError(f"{self.store}: is empty; --root names the folder of --source {source.name}")
        self.folder.mkdir(parents=True, exist_ok=True)
        tables = {name for names in source.tables for name in names} if isinstance(source, LandmarkSource) else set()
        for name in tables:
            if name in names:
                (self.folder / name).parent.mkdir(exist_ok=True)
                self.store.fetch(name, self.folder / name)
            else:  # of an earlier build
                (self.folder / name).unlink(missing_ok=True)

    def naming(self) -> contextlib.AbstractContextManager[None]:
        """Errors of the copies name the store."""
        return naming_store(self.folder, self.store.url, SourceError, LandmarkError, ShardError)

    def rows(self, source: Source, landmarks: Sequence[Path], *, aligning: bool) -> Rows:
        """As ``source.rows``; the images are read from the store.

        Raises:
            SourceError: there are no images, or none of the tables'.
            LandmarkError: a landmark table cannot be read.
        """
        if not (aligning and isinstance(source, LandmarkSource)):
            rows = listed_rows(self.folder, self._entries())
            return dataclasses.replace(rows, reader=StoredImages(self.store))
        rows = source.rows(self.folder, landmarks, aligning=aligning)
        places = self._places(rows.keys, source.splits)
        if places.null_count == len(places):
            raise SourceError(
                f"{self.store}: holds no image of the landmark tables, such as {rows.keys[0]}; check --root"
            )
        places = pc.coalesce(places, rows.keys).cast(pa.binary())  # of a missing image, for the message
        return dataclasses.replace(rows, reader=StoredImages(self.store), places=places)

    def _entries(self) -> dict[str, list[Entry]]:
        """The entries of ``""``, the root, and of the folders in it."""
        folders: dict[str, dict[str, bool]] = {"": {}}
        for name in self._names:
            top, *inner = name.split("/")
            folders[""][top] = bool(inner)
            if inner:
                folders.setdefault(top, {})[inner[0]] = len(inner) > 1
        return {
            folder: [Entry(name, is_folder, False) for name, is_folder in entries.items()]
            for folder, entries in folders.items()
        }

    def _places(self, keys: pa.StringArray, splits: Sequence[str]) -> pa.StringArray:
        """The names of the objects of the keys, in the first split that has one; null if none has."""
        names = pa.array(sorted(filter(is_image, self._names), key=by_preference), pa.string())
        stems = pa.array([composed(os.path.splitext(name)[0]) for name in names.to_pylist()], pa.string())
        found = pa.nulls(len(keys), pa.string())
        for split in splits:
            wanted = pc.binary_join_element_wise(split, keys, "/") if split else keys
            found = pc.coalesce(found, names.take(pc.index_in(wanted, value_set=stems)))
        return found
