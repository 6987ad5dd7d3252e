"""A run folder in an object store: copied to this machine before training, and uploaded while it goes on."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from model.formats.checkpoint import FOLDER
from model.training.config import TrainingError
from model.training.evaluation import BEST, BEST_FACTS
from model.training.ranks import Ranks
from shards.attempts import in_flight
from shards.errors import LockedError, LrfrError
from shards.files import remove_temporaries, write_bytes
from shards.locks import locked
from shards.messages import print_stderr
from shards.store import Entry, Store, StoreError, naming_store

POLL_S = 1.0
LOG_S = 60.0  # between uploads of logs alone
_CHECKPOINT = re.compile(rf"{FOLDER}/([0-9]+)\.pt")
_TEMPORARY = re.compile(r"\.lrfr-[0-9a-f]{8}\.partial")
# a killed upload leaves logs that go on after the newest checkpoint, whose rows a resumed run drops, never ones that end before
_ORDER = (BEST, BEST_FACTS)


class StoredRun:
    """A run folder on this machine that belongs to one in a store.

    What is in the store is the run. Files that a killed process could not upload any more are kept if the store has
    nothing newer.

    Attributes:
        store: where the run is.
        folder: the run folder on this machine.
        keep: checkpoints to keep in the store.
    """

    def __init__(self, store: Store, staging: Path, *, keep: int) -> None:
        """
        Args:
            staging: a folder for the run folder and a record of what has been uploaded.
        """
        self.store, self.folder, self.keep = store, staging / "run", keep
        self._staging, self._record = staging, staging / "uploaded.json"
        self._done: dict[str, list[int | str]] = {}  # name -> size, time of change and tag of what the store has
        self._stored: set[str] = set()  # checkpoints in the store
        self._stop = threading.Event()
        self._uploaded_s = 0.0

    @contextlib.contextmanager
    def opened(self, ranks: Ranks) -> Iterator[Path]:
        """Copies the run to each machine, and on rank 0 uploads what the block changes. A collective.

        Yields:
            The run folder.

        Raises:
            TrainingError: this machine has checkpoints that the store lacks, and the store others.
            LockedError: another process of this machine trains there.
            StoreError: the store cannot be used.
        """
        with contextlib.ExitStack() as stack:
            ranks.collect(lambda: self._begin(stack) if ranks.first else None)
            first_here = os.environ.get("LOCAL_RANK", "0") == "0"
            ranks.collect(lambda: self._pull_first(ranks) if ranks.first else None)
            # later, because machines may share the folder
            ranks.collect(lambda: self.pull(follows=True) if first_here and not ranks.first else None)
            with self._naming_store(), self._uploading(ranks) if ranks.first else contextlib.nullcontext():
                yield self.folder

    @contextlib.contextmanager
    def _naming_store(self) -> Iterator[None]:
        """Errors of what was copied from the store name the store: a file that is mended here would be replaced.

        Remedies keep paths of this machine, such as a checkpoint for ``--resume``, which takes no URL.
        """
        try:
            yield
        except LrfrError as error:
            text, here = str(error), str(self.folder)
            if text.startswith(here):
                error.args = (f"{self.store.url}{text.removeprefix(here)}",)
            raise

    @contextlib.contextmanager
    def _uploading(self, ranks: Ranks) -> Iterator[None]:
        thread = threading.Thread(target=self._upload_changes, daemon=True)
        thread.start()
        try:
            yield
        except BaseException:
            ranks.leave()
            self._stop.set()
            thread.join()
            try:
                self.push()
            except StoreError as error:  # what ended the block is reported last
                print_stderr(str(error))
            raise
        self._stop.set()
        thread.join()
        self.push()

    def _begin(self, stack: contextlib.ExitStack) -> None:
        self._staging.mkdir(parents=True, exist_ok=True)
        with naming_store(self._staging, self.store.url, LockedError):
            stack.enter_context(locked(self._staging, "training"))
        remove_temporaries(self._staging)

    def _pull_first(self, ranks: Ranks) -> None:
        self.pull()
        if ranks.size > 1:  # what a killed process could not upload, the other machines need
            self.push()

    def pull(self, *, follows: bool = False) -> None:
        """Makes the folder that of the store: all files but older checkpoints.

        Args:
            follows: another machine has rank 0, and this one goes on from what that has uploaded.

        Raises:
            TrainingError, StoreError: see ``opened``.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        listing = self.store.list()
        self._done = self._read_record()
        self._stored = {name for name in listing if _CHECKPOINT.fullmatch(name)}
        here, there = _newest(self._files()), _newest(listing)
        deleted_there = there < 0 and _newest(self._done) >= 0
        if here > there and follows:
            print_stderr(f"{self.folder}: its step {here} is deleted: rank 0 goes on from that of the store")
        elif here > there and not deleted_there:
            if any(self._done.get(name, [None])[-1] != listing[name].etag for name in self._stored):
                raise TrainingError(
                    f"{self.store}: has checkpoints of another machine, and {self.folder} has that of step {here}, which"
                    " the store lacks; delete one of the two runs"
                )
            print_stderr(f"{self.store}: lacks step {here}, which {self.folder} has; goes on from there")
            return
        wanted = {name for name in listing if _step(name) in (-1, there)}
        for name, facts in self._files().items():
            if name not in listing or self._done.get(name) != [*facts, listing[name].etag]:
                (self.folder / name).unlink()
        list(in_flight(lambda name: self._fetch(name, listing[name]), wanted - self._files().keys()))
        self._write_record()

    def _fetch(self, name: str, entry: Entry) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self.store.fetch(name, path)
        self._done[name] = [*_facts(path), entry.etag]

    def push(self) -> None:
        """Uploads the files that have changed, and deletes the checkpoints that are no longer kept.

        Raises:
            StoreError: the store cannot be used.
        """
        files = self._files()
        for name in sorted(self._changed(files), key=_order):
            snapshot = self._staging / "snapshot"
            snapshot.unlink(missing_ok=True)
            try:
                _snapshot(self.folder / name, snapshot)
            except FileNotFoundError:  # an older checkpoint, deleted meanwhile
                continue
            tag = self.store.upload(snapshot, name)
            snapshot.unlink()
            self._done[name] = [*files[name], tag]
            self._stored |= {name} if _CHECKPOINT.fullmatch(name) else set()
            self._write_record()
        old = sorted(self._stored, key=_step)[: -self.keep]
        self.store.delete(old)
        self._stored -= set(old)
        self._uploaded_s = time.monotonic()

    def _upload_changes(self) -> None:
        """Uploads new checkpoints at once, and logs now and then. Trouble does not stop the training."""
        self._uploaded_s = time.monotonic()
        while not self._stop.wait(POLL_S):
            changed = self._changed(self._files())
            if not any(name.endswith(".pt") for name in changed) and time.monotonic() < self._uploaded_s + LOG_S:
                continue
            try:
                self.push()
            except (StoreError, OSError) as error:
                print_stderr(f"{error}; training goes on, and the upload is tried again")
                self._uploaded_s = time.monotonic()

    def _changed(self, files: dict[str, tuple[int, int]]) -> list[str]:
        return [name for name, facts in files.items() if self._done.get(name, [None])[:-1] != list(facts)]

    def _files(self) -> dict[str, tuple[int, int]]:
        """Size and time of change of the files of the run by name."""
        found = {}
        for path in self.folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                if path.is_file() and not _TEMPORARY.search(path.name):
                    found[path.relative_to(self.folder).as_posix()] = _facts(path)
        return found

    def _read_record(self) -> dict[str, list[int | str]]:
        try:
            return {str(name): list(facts) for name, facts in json.loads(self._record.read_bytes()).items()}
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            return {}

    def _write_record(self) -> None:
        write_bytes(self._record, json.dumps(self._done).encode())


def _facts(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns


def _snapshot(path: Path, snapshot: Path) -> None:
    """What the file has now: a file that is replaced keeps its content under the new name, a log is copied."""
    if path.suffix == ".pt":
        with contextlib.suppress(OSError):  # no hard links here
            snapshot.hardlink_to(path)
            return
    shutil.copyfile(path, snapshot)


def _step(name: str) -> int:
    """The step of a checkpoint; -1 for another file."""
    match = _CHECKPOINT.fullmatch(name)
    return int(match[1]) if match else -1


def _newest(names: Iterable[str]) -> int:
    return max(map(_step, names), default=-1)


def _order(name: str) -> tuple[int, int]:
    """Uploads the best checkpoint before what is said of it, and checkpoints after the logs of their steps."""
    return (_ORDER.index(name) if name in _ORDER else len(_ORDER)), _step(name)
