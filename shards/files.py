"""Atomic files and folders, digests, and JSON records with a checksum."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import reprlib
import secrets
import shutil
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import xxhash

from shards.errors import ShardError
from shards.locks import sync, sync_folder, try_lock

StrPath = str | os.PathLike[str]
"""A path as users of the Python API give it."""

BLOCK_BYTES = 1 << 20
MAX_RECORD_BYTES = 1 << 28  # of a JSON record, which is read at once
MAX_FLUSHES = 1000
_STEM_BYTES = 255 - len(".lrfr-01234567.partial")  # of a temporary name; file systems take names of 255 bytes
_TEMPORARY = re.compile(r"(.*)\.lrfr-[0-9a-f]{8}\.partial", re.DOTALL)


def temporary_path(path: Path) -> Path:
    """Returns a new name beside ``path``, which shows that this tool chose it."""
    return path.with_name(f"{_stem(path.name)}.lrfr-{secrets.token_hex(4)}.partial")


def _stem(name: str) -> str:
    """The start of the temporary names of a file: its name, cut if that is too long."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= _STEM_BYTES else encoded[:_STEM_BYTES].decode(errors="ignore")


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Gives an OSError of the block that names no file, as those of ``write`` do, the name of this one."""
    try:
        yield
    except OSError as error:
        if error.errno and error.filename is None:
            error.filename = str(path)
        raise


@contextlib.contextmanager
def whole_file(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yields a new, empty temporary file, which is renamed to ``path`` if the block succeeds and deleted if it fails.

    Durable: fsync of the file, rename, fsync of the folder. An OSError that names no file, or the temporary one, gets
    the name of ``path``.

    Args:
        replace: False keeps a file that is there already, and drops the new one.
    """
    temporary, handle = temporary_path(path), -1
    try:
        # neither follows a link nor opens a file that was there
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
        try_lock(handle)
        yield temporary
        sync(handle)
        (os.replace if replace else _rename_unless_there)(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise
    finally:
        if handle >= 0:
            os.close(handle)
    sync_folder(path.parent)


def _rename_unless_there(temporary: Path, path: Path) -> None:
    """Renames a file unless there is one with the new name. Only a link is sure to replace none."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError:  # no hard links on this file system
        if not path.exists():
            os.replace(temporary, path)
            return
    temporary.unlink()


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yields an empty temporary folder, which replaces ``folder`` if the block succeeds and is deleted if it fails."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for killed in _stale(folder.parent, {folder.name}):
        _restore(killed / "old", folder)
        shutil.rmtree(killed)
    workspace = temporary_path(folder)
    new, old = workspace / "new", workspace / "old"
    workspace.mkdir()
    handle = os.open(workspace, os.O_RDONLY)
    try:
        try_lock(handle)
        new.mkdir()
        yield new
        _sync_all([*new.rglob("*"), new])
        if folder.exists():
            os.replace(folder, old)
        os.replace(new, folder)
        sync_folder(folder.parent)
    except OSError as error:
        if isinstance(error.filename, str) and error.filename.startswith(str(new)):
            error.filename = str(folder) + error.filename.removeprefix(str(new))
        raise
    finally:
        _restore(old, folder)
        shutil.rmtree(workspace)
        os.close(handle)


@contextlib.contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder with a temporary name beside ``path``, which is deleted after the block."""
    folder = temporary_path(path)
    folder.mkdir()
    handle = os.open(folder, os.O_RDONLY)
    try:
        try_lock(handle)
        yield folder
    finally:
        shutil.rmtree(folder)
        os.close(handle)


def _sync_all(paths: list[Path]) -> None:
    """Makes files and folders durable. Many are synced at once: a flush of the disk for each of 19,000 took a minute."""
    if len(paths) > MAX_FLUSHES:
        os.sync()
        return
    for path in paths:
        sync_folder(path)  # or file


def _restore(old: Path, folder: Path) -> None:
    """Undoes the first of the two renames that replace a folder, if the second did not happen."""
    if old.exists() and not folder.exists():
        os.replace(old, folder)


def write_bytes(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Writes ``data`` to ``path`` atomically; see ``whole_file``."""
    with whole_file(path, replace=replace) as temporary:
        temporary.write_bytes(data)


def remove_temporaries(folder: Path, of: str | Collection[str] | None = None) -> None:
    """Deletes the temporary files and folders that killed processes of this tool left in ``folder``.

    Args:
        of: only those of the files or folders with these names. None, all: for a folder that this process has locked.
    """
    for path in _stale(folder, {of} if isinstance(of, str) else of):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def is_temporary_of(name: str, of: str) -> bool:
    """Returns True if ``temporary_path`` chose ``name`` for a file called ``of``."""
    match = _TEMPORARY.fullmatch(name)
    return match is not None and match[1] == _stem(of)


def _stale(folder: Path, of: Collection[str] | None) -> Iterator[Path]:
    """Yields temporary files and folders of this tool that no running process has locked."""
    stems = of and set(map(_stem, of))
    for name in os.listdir(folder) if folder.is_dir() else ():
        match = _TEMPORARY.fullmatch(name)
        path = folder / name
        if match and (stems is None or match[1] in stems) and not path.is_symlink() and not _in_use(path):
            yield path


def _in_use(path: Path) -> bool:
    try:  # NFS locks only what is open for writing
        handle = os.open(path, os.O_NOFOLLOW | (os.O_RDONLY if path.is_dir() else os.O_RDWR))
    except OSError:  # its process has just finished it, or it is another user's
        return True
    try:
        return try_lock(handle) is False
    finally:
        os.close(handle)


def regular_handle(path: StrPath) -> int:
    """Opens a file for reading. Raises: OSError: there is none, or it is a pipe or device, which might block for ever."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return handle


def open_regular(path: Path) -> BinaryIO:
    """As ``regular_handle``, but returns a stream."""
    return open(regular_handle(path), "rb")


def file_facts(path: Path) -> dict[str, Any]:
    """Returns ``{"size": bytes, "xxh3": hex, "sha256": hex}`` of a file."""
    fast, strong, size = xxhash.xxh3_64(), hashlib.sha256(), 0
    with naming(path), open_regular(path) as stream:
        while block := stream.read(BLOCK_BYTES):
            fast.update(block)
            strong.update(block)
            size += len(block)
    return {"size": size, "xxh3": fast.hexdigest(), "sha256": strong.hexdigest()}


def quick_digest(path: Path) -> str:
    """Returns the xxh3 (hex) of a file."""
    with naming(path), open_regular(path) as stream:
        return hashlib.file_digest(stream, xxhash.xxh3_64).hexdigest()  # type: ignore[arg-type]


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 (hex) of a file."""
    with naming(path), open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]


def digest(value: Any) -> str:
    """Returns the SHA-256 (hex) of the canonical JSON of ``value``."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_record(path: Path, record: dict[str, Any], *, replace: bool = True) -> None:
    """Writes ``record`` as JSON, with a field ``digest`` over all other fields.

    Args:
        replace: False keeps a file that is there already, even if another process has just written it.
    """
    text = json.dumps({**record, "digest": digest(record)}, indent=1, sort_keys=True)
    write_bytes(path, (text + "\n").encode(), replace=replace)


def read_record(path: Path) -> dict[str, Any]:
    """Reads a file that ``write_record`` wrote; the result has no ``digest``.

    Raises:
        ShardError: the file is absent, cannot be read, is not JSON, or does not match its digest.
    """
    if path.exists() and not path.is_file():  # a pipe would block
        raise ShardError(f"{path}: not a regular file; build again into an empty --out")
    try:
        if path.stat().st_size > MAX_RECORD_BYTES:
            raise ValueError
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
