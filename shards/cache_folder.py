"""CacheFolder: a local cache of limited size for files of shard sets, shared by all processes that use it.

``FOLDER/NAME.lrfr-set-DIGEST/`` is the folder of a set; nothing else there is touched. A file appears by a rename, when it
is whole and verified. While it is fetched it has a fixed name beside that one and is locked, so that no two processes fetch
the same file; the lock of a process that is killed ends with it, and the next one that makes room deletes what it left. The
lock of the folder itself is held only while space is counted and reserved: a file has its full size from the start.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from shards.arguments import shown
from shards.errors import ShardError
from shards.files import StrPath, naming
from shards.locks import try_lock

MAX_SIZE = 1 << 62  # bytes
FREE_SHARE = 0.9  # of what is free, and of what the cache holds: the default size
_PARTIAL = ".fetching"
_SET = re.compile(r".+\.lrfr-set-[0-9a-f]{16}", re.DOTALL)
_TAR = re.compile(r"shard-[0-9]+\.tar", re.ASCII)
_SIZE = re.compile(r"(\d+(?:\.\d*)?) *([KMGT]?)(i?)B?", re.IGNORECASE | re.ASCII)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def as_bytes(text: str) -> int:
    """``50G`` or ``50GB`` -> 50,000,000,000; ``50GiB`` -> 53,687,091,200.

    Raises:
        ValueError: it is not such a size.
    """
    match, count = _SIZE.fullmatch(text.strip()), 0.0
    if match and (match[2] or not match[3]):
        count = float(match[1]) * (1024 if match[3] else 1000) ** _POWERS[match[2].upper()]
    if not 1 <= count < MAX_SIZE:
        raise ValueError(
            f"{shown(text)} is not a size; expected a number of bytes with a unit, such as 800M, 50G or 1.5T"
        )
    return int(count)


def size_text(count: float) -> str:
    """12,345,678 -> ``12.3 MB``."""
    power = next((power for power in range(4) if count < 999.5 * 1000**power), 4)
    digits = 0 if power == 0 or count >= 100 * 1000**power else 1
    return f"{count / 1000**power:.{digits}f} {' KMGT'[power].strip()}B"


class _File(NamedTuple):
    used: int  # time of the last use, ns
    size: int
    path: Path


class CacheFolder:
    """
    Attributes:
        path: the folder.
        size: most bytes that its files may have, all sets together.
    """

    def __init__(self, path: StrPath, size: int | None = None) -> None:
        """Makes the folder.

        Args:
            size: None: 90 % of what it holds and what is free on its disk.

        Raises:
            ShardError: it cannot be made, or its file system has no locks.
            OSError: it cannot be read.
        """
        self.path = Path(path).absolute()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ShardError(f"{self.path} cannot be made: {error.strerror}; choose another --cache-folder") from None
        with self._locked():
            used = sum(file.size for file in self._files())
        self.size = int(FREE_SHARE * (used + shutil.disk_usage(self.path).free)) if size is None else size

    @contextlib.contextmanager
    def opened_set(self, name: str, digest: str) -> Iterator[Path]:
        """Yields the folder of a set, which stays while the block runs; deletes those of unused sets without tars.

        Args:
            digest: hexadecimal digits, which no set with other files has.
        """
        folder = self.path / f"{name}.lrfr-set-{digest[:16]}"
        with self._locked():
            folder.mkdir(exist_ok=True)
            handle = os.open(folder, os.O_RDONLY)
            try_lock(handle, fcntl.LOCK_SH)
            self._remove_empty_sets()
        try:
            yield folder
        finally:
            os.close(handle)

    def claim(self, path: Path, size: int) -> BinaryIO | None:
        """Reserves room for a file; deletes the least recently used tars for it.

        Returns:
            A stream to write it to, for ``publish`` or ``abandon``; None if it is there, if it is being fetched, or if
            there is no room until a file that is being fetched has arrived.

        Raises:
            OSError: it cannot be written.
            ShardError: the cache is too small for it.
        """
        with self._locked():
            if path.exists():
                return None
            partial = path.with_name(path.name + _PARTIAL)
            handle = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            try:
                if not try_lock(handle):
                    os.close(handle)
                    return None
                os.truncate(handle, 0)
                if self._make_room(size):
                    os.truncate(handle, size)
                    return open(handle, "r+b")
                partial.unlink()
            except BaseException:
                with contextlib.suppress(OSError):
                    partial.unlink()
                os.close(handle)
                raise
            os.close(handle)
            return None

    def publish(self, path: Path, stream: BinaryIO) -> None:
        """Gives a file that has arrived its name.

        It is not synced: after a power failure its hashes, which are compared at each use, show whether it is whole.
        """
        with naming(path):
            stream.flush()
            with self._locked():
                os.replace(path.with_name(path.name + _PARTIAL), path)
                stream.close()

    def abandon(self, path: Path, stream: BinaryIO) -> None:
        """Deletes an incomplete file."""
        with self._locked():
            path.with_name(path.name + _PARTIAL).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # what is still in the buffer may not fit on the disk
                stream.close()

    def drop(self, path: Path, handle: int) -> None:
        """Deletes an open file that is damaged, unless it has been replaced already."""
        with self._locked(), contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                path.unlink()

    def _make_room(self, size: int) -> bool:
        """Deletes tars until ``size`` bytes more fit. Returns False if they do not until a fetch has ended."""
        files = list(self._files())
        excess = sum(file.size for file in files) + size - self.size
        own = {folder for folder in self._sets() if os.access(folder, os.W_OK)}  # the others are another user's
        tars = sorted(file for file in files if file.path.parent in own and _TAR.fullmatch(file.path.name))
        if excess > sum(file.size for file in tars):
            if any(file.path.suffix == _PARTIAL and file.size for file in files):
                return False
            raise ShardError(
                f"{self.path}: {size_text(self.size)} do not suffice for a shard of {size_text(size)} and the indexes"
                " there; raise --cache-size"
            )
        for file in tars:
            if excess <= 0:
                break
            file.path.unlink(missing_ok=True)
            excess -= file.size
        return True

    def _files(self) -> Iterator[_File]:
        """Yields the files of all sets, and deletes what killed processes left."""
        for folder in self._sets():
            for entry in os.scandir(folder):
                try:
                    facts = entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # renamed meanwhile
                    continue
                path = Path(entry.path)
                if stat.S_ISREG(facts.st_mode) and not (path.suffix == _PARTIAL and _removed(path)):
                    yield _File(facts.st_mtime_ns, facts.st_size, path)

    def _sets(self) -> list[Path]:
        """The folders of sets that this user may read."""
        entries = (entry for entry in os.scandir(self.path) if _SET.fullmatch(entry.name))
        folders = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
        return [folder for folder in folders if os.access(folder, os.R_OK | os.X_OK)]

    def _remove_empty_sets(self) -> None:
        for folder in self._sets():
            if not os.access(folder, os.W_OK) or any(map(_TAR.fullmatch, os.listdir(folder))):
                continue
            handle = os.open(folder, os.O_RDONLY)
            try:
                if try_lock(handle):
                    shutil.rmtree(folder)
            finally:
                os.close(handle)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Waits for the lock of the folder. Raises: ShardError: its file system has none."""
        handle = os.open(self.path, os.O_RDONLY)
        try:
            if try_lock(handle, fcntl.LOCK_SH) is None:
                raise ShardError(
                    f"{self.path}: its file system has no file locks; choose a --cache-folder on a disk of this machine"
                )
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _removed(partial: Path) -> bool:
    """Deletes a file; returns False, and keeps it, if a process is fetching it."""
    try:
        handle = os.open(partial, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    except OSError:  # another user's
        return False
    try:
        if try_lock(handle) is False:
            return False
        partial.unlink(missing_ok=True)
        return True
    finally:
        os.close(handle)
