"""Atomic files and folders, locks, digests, and JSON records with a checksum."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import reprlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import xxhash

from shards.errors import LockedError, ShardError

TEMPORARY_SUFFIX = ".partial"
BLOCK_BYTES = 1 << 20


def sync_folder(folder: Path) -> None:
    """Makes renames inside ``folder`` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path, which is renamed to ``path`` if the block succeeds and deleted if it fails.

    Durable: fsync of the file, rename, fsync of the folder.
    """
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    try:
        yield temporary
        with open(temporary, "rb") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yields an empty temporary folder, which replaces ``folder`` if the block succeeds and is deleted if it fails."""
    workspace = folder.with_name(folder.name + TEMPORARY_SUFFIX)
    new, old = workspace / "new", workspace / "old"
    _restore(old, folder)
    shutil.rmtree(workspace, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        yield new
        if folder.exists():
            os.replace(folder, old)
        os.replace(new, folder)
        sync_folder(folder.parent)
    finally:
        _restore(old, folder)
        shutil.rmtree(workspace)


def _restore(old: Path, folder: Path) -> None:
    """Undoes the first of the two renames that replace a folder, if the second did not happen."""
    if old.exists() and not folder.exists():
        os.replace(old, folder)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes ``data`` to ``path`` atomically."""
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


def remove_temporaries(folder: Path, names: Sequence[str]) -> None:
    """Deletes the temporary files of interrupted writers; ``names`` are glob patterns of the final names."""
    for name in names:
        for path in folder.glob(name + TEMPORARY_SUFFIX):
            path.unlink()


@contextlib.contextmanager
def locked(folder: Path, activity: str) -> Iterator[None]:
    """Locks ``folder`` for one process; the lock ends with the process.

    Args:
        activity: what the lock is for, such as ``training``; part of the error message.

    Raises:
        LockedError: another process has locked it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(
                f"{folder}: another process is {activity} here; wait for it to end, or choose another --out"
            ) from None
        yield
    finally:
        os.close(handle)


def file_facts(path: Path) -> dict[str, Any]:
    """Returns ``{"size": bytes, "xxh3": hex, "sha256": hex}`` of a file."""
    fast, strong, size = xxhash.xxh3_64(), hashlib.sha256(), 0
    with open(path, "rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            fast.update(block)
            strong.update(block)
            size += len(block)
    return {"size": size, "xxh3": fast.hexdigest(), "sha256": strong.hexdigest()}


def quick_digest(path: Path) -> str:
    """Returns the xxh3 (hex) of a file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, xxhash.xxh3_64).hexdigest()  # type: ignore[arg-type]


def digest(value: Any) -> str:
    """Returns the SHA-256 (hex) of the canonical JSON of ``value``."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Writes ``record`` as JSON, with a field ``digest`` over all other fields."""
    text = json.dumps({**record, "digest": digest(record)}, indent=1, sort_keys=True)
    write_bytes(path, (text + "\n").encode())


def read_record(path: Path) -> dict[str, Any]:
    """Reads a file that ``write_record`` wrote; the result has no ``digest``.

    Raises:
        ShardError: the file is absent, cannot be read, is not JSON, or does not match its digest.
    """
    if path.exists() and not path.is_file():  # a pipe would block
        raise ShardError(f"{path}: not a regular file; build again into an empty --out")
    try:
        record = json.loads(path.read_bytes())
        stated = record.pop("digest")
        found = digest(record)
    except FileNotFoundError:
        raise ShardError(f"{path}: not found") from None
    except OSError as error:
        raise ShardError(f"{path}: {error.strerror or error}") from None
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise ShardError(
            f"{path}: damaged, or not a JSON record of this tool; build again into an empty --out"
        ) from None
    if stated != found:
        raise ShardError(f"{path}: damaged or edited (digest mismatch); build again into an empty --out")
    return record


def check_fields(path: Path, record: dict[str, Any], types: Mapping[str, type]) -> None:
    """Validates the fields of a record that ``types`` names; integers must not be negative.

    A record with a valid digest may still come from anywhere.

    Raises:
        ShardError: a field is missing or of the wrong type.
    """
    for name, kind in types.items():
        value = record.get(name)
        if type(value) is not kind or (isinstance(value, int) and value < 0):
            found = reprlib.repr(value) if name in record else "missing"
            expected = "an integer from 0" if kind is int else f"of type {kind.__name__}"
            raise ShardError(f"{path}: {name[:40]} is {found}, expected {expected}; build again into an empty --out")
