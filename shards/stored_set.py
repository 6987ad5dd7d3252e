"""A finished shard set in an object store, checked by copies of its files."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from shards.attempts import CONCURRENT, in_flight
from shards.card import CARD
from shards.errors import ShardError
from shards.files import MAX_RECORD_BYTES
from shards.schema import DATA_SUFFIXES, DONE_SUFFIX, INDEX, MANIFEST, PLAN, Manifest, read_done, shard_file
from shards.store import Entry, Store, naming_store
from shards.verify import verify

TARS_AHEAD = 3
_SHARD_NAME = re.compile(r"shard-[\w.-]{1,200}", re.ASCII)


def not_a_set(store: Store, listing: dict[str, Entry]) -> ShardError:
    """The error for a store without a manifest."""
    begun = "is an unfinished build; run build-shards again to resume it"
    state = begun if PLAN in listing else "is not a shard set" if listing else "is empty"
    return ShardError(f"{store}/{MANIFEST}: not found; {store} {state}")


class StoredSet:
    """A shard set in an object store, for checking it; a context manager. At its end the local copies are deleted.

    Attributes:
        store: where the set is.
        listing: its objects, listed once.
        manifest: its manifest.
    """

    listing: dict[str, Entry]
    manifest: Manifest

    def __init__(self, store: Store) -> None:
        self.store = store
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> StoredSet:
        """Raises: ShardError: no finished shard set. StoreError: the store cannot be used."""
        with contextlib.ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lrfr-")))
            self.listing = self.store.list()
            if MANIFEST not in self.listing:
                raise not_a_set(self.store, self.listing)
            self._copy_record(MANIFEST)
            with self._naming():
                self.manifest = Manifest.read(self._folder)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def problems(self, *, full: bool = False, on_shard: Callable[[], None] = lambda: None) -> Iterator[str]:
        """Yields the problems of the set, see ``shards.verify.verify``.

        Raises:
            StoreError: an object cannot be read.
        """
        for name in (PLAN, CARD):
            self._copy_record(name)
        self._copy(INDEX, self.manifest.files[INDEX])
        shards = range(self.manifest.shards)
        known = {shard_file(shard, suffix) for shard in shards for suffix in (*DATA_SUFFIXES, DONE_SUFFIX)}
        for name in self.listing.keys() - known:
            if _SHARD_NAME.fullmatch(name):
                (self._folder / name).touch()
        copies = in_flight(lambda shard: self._copy_shard(shard, full), shards, TARS_AHEAD if full else CONCURRENT)

        def before_shard(shard: int) -> None:
            next(copies)
            for suffix in (*DATA_SUFFIXES, DONE_SUFFIX) if shard else ():
                (self._folder / shard_file(shard - 1, suffix)).unlink(missing_ok=True)

        with contextlib.closing(copies), self._naming():
            for problem in verify(self._folder, full=full, on_shard=on_shard, before_shard=before_shard):
                yield problem.replace(str(self._folder), self.store.url)

    def _copy_shard(self, shard: int, full: bool) -> None:
        done = shard_file(shard, DONE_SUFFIX)
        self._copy(done, self.manifest.files[done])
        try:
            files = read_done(self._folder, shard)["files"]
        except ShardError:  # verify reports it
            return
        for suffix in DATA_SUFFIXES:
            name = shard_file(shard, suffix)
            self._copy(name, files[name], content=full or suffix != "tar")

    def _copy(self, name: str, facts: Mapping[str, Any], *, content: bool = True) -> None:
        """Copies an object. One that is too large, or whose content is not needed, becomes a sparse file of its size."""
        entry = self.listing.get(name)
        if entry is None:
            return
        if content and entry.size <= facts["size"]:
            self.store.fetch(name, self._folder / name)
            return
        with open(self._folder / name, "wb") as stream:
            stream.truncate(entry.size)

    def _copy_record(self, name: str) -> None:
        if name in self.listing:
            self._copy(name, {"size": min(self.listing[name].size, MAX_RECORD_BYTES)})

    def _naming(self) -> contextlib.AbstractContextManager[None]:
        return naming_store(self._folder, self.store.url, ShardError)
