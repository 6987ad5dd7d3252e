"""The columns of a large index in a file of the user's cache folder, which all processes of a machine map.

Reading 42 million rows of Parquet takes every process 1.2 GB and some seconds. This file is written once and mapped by all.
The digest of the index names it, and its content is compared with its hash whenever it is opened.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import mmap
import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xxhash

from shards.columns import (
    COLUMNS,
    TYPES,
    Arrays,
    IndexColumns,
    check_rows,
    columns_in_memory,
    identity_rows,
    read_columns,
)
from shards.files import digest, regular_handle, remove_temporaries, whole_file
from shards.messages import print_stderr
from shards.schema import Manifest

MAPPED_ROWS = 4_000_000  # of an index whose columns are mapped: reading them takes 0.15 s and 112 MB
MIN_ROW_BYTES = 4  # of a real index, whose hashes alone take 8: a smaller file could claim any number of rows
UNUSED_DAYS = 30  # after which the columns of another set are deleted
_HEADER_BYTES, _ALIGNMENT = 4096, 64
_HEADER_TYPES = {"format": int, "index": str, "rows": int, "identities": int, "labels": int, "shards": int, "xxh3": str}
_FORMAT = 1
Layout = dict[str, tuple[int, np.dtype, int]]
_NAME = re.compile(r"columns-[0-9a-f]{16}")


def open_columns(path: Path, manifest: Manifest) -> IndexColumns:
    """The columns of the index ``path``: mapped if it is large, else in memory.

    Raises:
        ShardError: the file is not that of the manifest, or its values are not those of a set with this manifest.
    """
    stated, row_bytes = manifest.files[path.name]["size"], MIN_ROW_BYTES * manifest.images
    is_large = manifest.images >= MAPPED_ROWS and stated >= row_bytes
    if is_large and path.is_file() and path.stat().st_size == stated:
        try:
            if mapped := _mapped(path, manifest):
                return mapped
            reason = "the file there cannot be used"
        except (OSError, RuntimeError) as error:  # RuntimeError: no home folder
            reason = getattr(error, "strerror", None) or str(error)
        print_stderr(
            f"{path}: columns cannot be kept in {_folder_name()} ({reason}), so each process holds"
            f" {28 * manifest.images / 1e9:.1f} GB; name a folder by XDG_CACHE_HOME"
        )
    return columns_in_memory(path, manifest)


def _mapped(path: Path, manifest: Manifest) -> IndexColumns | None:
    """The columns from their file, which is made unless it is there; None if it cannot be used.

    Raises:
        ShardError: see ``open_columns``.
        OSError, RuntimeError: there is no folder for it, or no room.
    """
    folder = _folder()
    file = folder / f"columns-{manifest.index_digest}"
    if not _NAME.fullmatch(file.name):  # the manifest may come from anywhere
        check_rows(path, manifest)
    if columns := _open_file(file, manifest):
        return columns
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _one_at_a_time(folder):
        if columns := _open_file(file, manifest):  # another process has just made it
            return columns
        print_stderr(f"{path}: writing its columns to {file}, once")
        _make_room(folder, file.name)
        _write_file(file, path, manifest)
    return _open_file(file, manifest)


def _folder() -> Path:
    """The user's folder for what can be made again. Raises: RuntimeError: there is none."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".cache") / "lrfr"


def _folder_name() -> str:
    try:
        return str(_folder())
    except RuntimeError:
        return "~/.cache/lrfr"


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Waits for other processes that are in the block, where the file system has locks."""
    handle = os.open(folder / "columns.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _make_room(folder: Path, name: str) -> None:
    """Deletes what a killed process left of a file, and the files of sets that have not been opened for long."""
    remove_temporaries(folder, name)
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            if _NAME.fullmatch(path.name) and path.stat().st_mtime < time.time() - UNUSED_DAYS * 86400:
                path.unlink()


def _layout(rows: int, identities: int) -> tuple[Layout, int]:
    """Start, type and length of each column in the file; the size of the file."""
    lengths = [(name, kind, rows) for name, kind in TYPES.items()]
    of_identities = {"labels": np.int32, "first": np.int64, "count": np.int64}
    lengths += [(name, np.dtype(kind), identities) for name, kind in of_identities.items()]
    layout, end = {}, _HEADER_BYTES
    for name, kind, length in lengths:
        layout[name] = (end, kind, length)
        end += -(-length * kind.itemsize // _ALIGNMENT) * _ALIGNMENT
    return layout, end


def _arrays(memory: mmap.mmap, layout: Layout, names: Iterable[str]) -> Arrays:
    return {name: np.frombuffer(memory, layout[name][1], layout[name][2], layout[name][0]) for name in names}


def _write_file(file: Path, path: Path, manifest: Manifest) -> None:
    """Writes the columns of the index ``path`` to ``file``, which appears whole.

    Raises:
        ShardError: see ``open_columns``.
        OSError: no room, or the folder cannot be written.
    """
    check_rows(path, manifest)
    layout, size = _layout(manifest.images, 0)
    with whole_file(file) as temporary, open(temporary, "r+b") as stream:
        os.posix_fallocate(stream.fileno(), 0, size)  # a full disk shows here, not as SIGBUS
        columns = _arrays(mmap.mmap(stream.fileno(), size), layout, COLUMNS)
        read_columns(path, manifest, columns)
        identities = identity_rows(columns["label"])
        layout, size = _layout(manifest.images, len(identities["first"]))
        for name, values in identities.items():
            stream.seek(layout[name][0])
            stream.write(values.tobytes())
        stream.truncate(size)
        header = {
            "format": _FORMAT,
            "index": manifest.index_digest,
            "rows": manifest.images,
            "identities": len(identities["first"]),
            "labels": int(columns["label"][-1]) + 1,
            "shards": int(columns["shard"].max()) + 1,
        }
        del columns
        header["xxh3"] = _content_digest(stream)
        stream.seek(0)
        stream.write(json.dumps({**header, "digest": digest(header)}).encode().ljust(_HEADER_BYTES))


def _open_file(file: Path, manifest: Manifest) -> IndexColumns | None:
    """Maps the file of an index; None if it is not there, or is not what ``_write_file`` wrote for this index.

    All of it is read and compared with its hash: 1.2 GB of 42 million images take 0.3 s from memory.
    """
    try:
        handle = regular_handle(file)
    except OSError:
        return None
    with open(handle, "rb") as stream:
        header = _header(stream.read(_HEADER_BYTES))
        if header is None or (header["index"], header["rows"]) != (manifest.index_digest, manifest.images):
            return None
        if header["labels"] > manifest.identities or header["shards"] > manifest.shards or header["identities"] < 1:
            return None
        facts = os.fstat(handle)
        layout, size = _layout(header["rows"], header["identities"])
        if facts.st_size != size or facts.st_uid not in (os.geteuid(), 0) or _content_digest(stream) != header["xxh3"]:
            return None
        with contextlib.suppress(OSError):
            os.utime(handle)  # it is in use
        return IndexColumns(**_arrays(mmap.mmap(handle, 0, access=mmap.ACCESS_READ), layout, layout))


def _header(data: bytes) -> dict[str, Any] | None:
    try:
        header: dict[str, Any] = json.loads(data)
        stated = header.pop("digest")
        good = stated == digest(header) and all(type(header[name]) is kind for name, kind in _HEADER_TYPES.items())
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError):
        return None
    return header if good and header["format"] == _FORMAT else None


def _content_digest(stream: BinaryIO) -> str:
    stream.flush()
    stream.seek(_HEADER_BYTES)
    return hashlib.file_digest(stream, xxhash.xxh3_64).hexdigest()  # type: ignore[arg-type]
