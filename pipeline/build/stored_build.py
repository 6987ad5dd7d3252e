"""A build into an object store: what is there, and finished files on their way there.

The build writes into a folder of this machine, the staging, as any other build does. A worker uploads a shard when it has
committed it, its done record last, and deletes what only readers of the set need. A shard counts if its done record is in
the store and the files beside it have the content that the record states. The manifest comes last.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from shards.attempts import in_flight
from shards.card import CARD
from shards.errors import ShardError
from shards.files import quick_digest
from shards.schema import (
    DATA_SUFFIXES,
    DONE_SUFFIX,
    INDEX,
    LANDMARKS,
    MANIFEST,
    PLAN,
    Manifest,
    read_done,
    shard_file,
)
from shards.store import Entry, Store
from shards.system_names import is_system_name

_INDEX_TAG = "index-tag"  # a note of the manifest


class StoredBuild:
    """The store of a build, seen from the process that plans it.

    Attributes:
        store: where the set is to be.
        folder: the staging.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self._records: dict[int, tuple[Entry, dict[str, Any], dict[str, str]]] = {}

    def begin(self) -> None:
        """Makes the staging that of the store's build: it has the plan that the store has, and may have landmarks.

        Raises:
            ShardError: something else is there.
            StoreError: the store cannot be used.
        """
        listing = self.store.list()
        if PLAN in listing:
            self.store.fetch(PLAN, self.folder / PLAN)
        else:
            tops = sorted({name.partition("/")[0] for name in listing})
            if others := [name for name in tops if not is_system_name(name) and name != LANDMARKS]:
                raise ShardError(
                    f"{self.store}: not empty and not a shard set (it contains {others[0]}); choose a new or empty --out"
                )
            for path in self.folder.iterdir():  # of a build that is no longer in the store
                if path.is_file() and not path.name.startswith(LANDMARKS):
                    path.unlink()
        if LANDMARKS in listing and not (self.folder / LANDMARKS).exists():
            self.store.fetch(LANDMARKS, self.folder / LANDMARKS)

    def records(self, shards: Sequence[int], fingerprint: str) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """Yields the done records of shards that are in the store, None if a file is not as its record states.

        One listing, and a request for each record that this process has not read yet.
        """
        listing = self.store.list()
        there = [shard for shard in shards if shard_file(shard, DONE_SUFFIX) in listing]
        for shard, known in zip(there, in_flight(lambda shard: self._record(shard, listing), there), strict=True):
            record, notes = known
            good = record is not None and record["fingerprint"] == fingerprint
            good = good and all(
                self.store.is_intact(name, listing.get(name), record["files"][name], notes.get(suffix))
                for suffix in DATA_SUFFIXES
                for name in [shard_file(shard, suffix)]
            )
            yield shard, record if good else None

    def _record(self, shard: int, listing: dict[str, Entry]) -> tuple[dict[str, Any] | None, dict[str, str]]:
        """The done record of a shard, None if it is damaged, and the tags of its files by suffix."""
        name = shard_file(shard, DONE_SUFFIX)
        if shard not in self._records or self._records[shard][0] != listing[name]:
            notes = self.store.fetch(name, self.folder / name)
            try:
                record = read_done(self.folder, shard)
            except ShardError:
                return None, notes
            self._records[shard] = listing[name], record, notes
        return self._records[shard][1:]

    def is_published(self) -> bool:
        """Returns True if index and manifest are in the store and belong together; the staging has the manifest then."""
        listing = self.store.list()
        if not {INDEX, MANIFEST} <= set(listing):
            return False
        notes = self.store.fetch(MANIFEST, self.folder / MANIFEST)
        try:
            facts = Manifest.read(self.folder).files[INDEX]
        except ShardError:
            return False
        return self.store.is_intact(INDEX, listing[INDEX], facts, notes.get(_INDEX_TAG))

    def unpublish(self, names: Iterable[str]) -> None:
        """Deletes the manifest, then further objects."""
        self.store.delete([MANIFEST])
        self.store.delete(names)

    def share_plan(self) -> None:
        """Uploads landmarks and plan of the staging unless they are there, and takes over the plan that is there."""
        listing = self.store.list()
        for name in (LANDMARKS, PLAN):
            if name not in listing and (self.folder / name).exists():
                self.store.upload(self.folder / name, name)
        self.store.fetch(PLAN, self.folder / PLAN)

    def gather(self, records: dict[int, dict[str, Any]]) -> None:
        """Brings what index and manifest are made of into the staging: rows, done records and the user's card."""
        list(in_flight(lambda shard: self._gather(shard, records[shard]), records))
        if CARD in self.store.list():
            self.store.fetch(CARD, self.folder / CARD)

    def _gather(self, shard: int, record: dict[str, Any]) -> None:
        name, done = shard_file(shard, "parquet"), shard_file(shard, DONE_SUFFIX)
        path, facts = self.folder / name, record["files"][name]
        if not (path.exists() and quick_digest(path) == facts["xxh3"]):
            self.store.fetch(name, path, facts)
        if not (self.folder / done).exists():
            self.store.fetch(done, self.folder / done)

    def publish(self) -> None:
        """Uploads index and card, and then the manifest."""
        tag = self.store.upload(self.folder / INDEX, INDEX)
        self.store.upload(self.folder / CARD, CARD)
        self.store.upload(self.folder / MANIFEST, MANIFEST, {_INDEX_TAG: tag})

    def end(self) -> None:
        """Deletes the staging: everything is in the store."""
        shutil.rmtree(self.folder)

    def fetch_index(self) -> None:
        """Brings the index of a finished set into the staging."""
        if not (self.folder / INDEX).exists():
            self.store.fetch(INDEX, self.folder / INDEX, Manifest.read(self.folder).files[INDEX])


def publish_shard(store: Store, folder: Path, shard: int) -> None:
    """Uploads a committed shard, its done record last; of its files, those stay that the index is made of.

    Raises:
        StoreError: the store cannot be used.
    """
    names = {suffix: shard_file(shard, suffix) for suffix in DATA_SUFFIXES}
    tags = {suffix: store.upload(folder / name, name) for suffix, name in names.items()}
    done = shard_file(shard, DONE_SUFFIX)
    store.upload(folder / done, done, tags)
    for suffix in ("tar", "idx"):
        (folder / names[suffix]).unlink()
