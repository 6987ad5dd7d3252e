"""Files that appear whole or not at all, and small JSON records that notice a flipped byte."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import xxhash

from shards.errors import ShardError

TEMPORARY_SUFFIX = ".partial"
_BLOCK = 1 << 20


def sync_folder(folder: Path) -> None:
    """Makes renames inside ``folder`` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path that becomes ``path`` when the block ends well, and disappears when it does not.

    The bytes are on disk before the name is: fsync, rename, fsync of the folder.
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


def write_bytes(path: Path, data: bytes) -> None:
    """Writes ``data`` to ``path``, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


def remove_temporaries(folder: Path, names: Sequence[str]) -> None:
    """Deletes what interrupted writers left behind of files with these names (patterns)."""
    for name in names:
        for path in folder.glob(name + TEMPORARY_SUFFIX):
            path.unlink()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds ``folder`` for one writer; the lock dies with its process.

    Raises:
        ShardError: another process holds it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ShardError(f"{folder}: another build is writing here; wait for it, or choose another --out") from None
        yield
    finally:
        os.close(handle)


def file_facts(path: Path) -> dict[str, Any]:
    """``{"size": bytes, "xxh3": hex, "sha256": hex}`` of a file, read in blocks."""
    fast, strong, size = xxhash.xxh3_64(), hashlib.sha256(), 0
    with open(path, "rb") as stream:
        while block := stream.read(_BLOCK):
            fast.update(block)
            strong.update(block)
            size += len(block)
    return {"size": size, "xxh3": fast.hexdigest(), "sha256": strong.hexdigest()}


def quick_digest(path: Path) -> str:
    """xxh3 (hex) of a file, at the speed of memory."""
    hasher = xxhash.xxh3_64()
    with open(path, "rb") as stream:
        while block := stream.read(_BLOCK):
            hasher.update(block)
    return hasher.hexdigest()


def digest(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of ``value``."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Writes ``record`` as JSON with a ``digest`` of its other fields."""
    text = json.dumps({**record, "digest": digest(record)}, indent=1, sort_keys=True)
    write_bytes(path, (text + "\n").encode())


def read_record(path: Path) -> dict[str, Any]:
    """Reads what ``write_record`` wrote, without its ``digest``.

    Raises:
        ShardError: the file is absent, is not JSON, or does not match its digest.
    """
    try:
        record = json.loads(path.read_bytes())
        stated = record.pop("digest")
    except FileNotFoundError:
        raise ShardError(f"{path}: not found") from None
    except (ValueError, KeyError, AttributeError, TypeError):
        raise ShardError(f"{path}: damaged (not a record of this tool); build again into an empty --out") from None
    if stated != digest(record):
        raise ShardError(f"{path}: damaged or edited (its digest does not match); build again into an empty --out")
    return record
