"""Counts what a process does to the files of a folder, and kills it or lets it fail at one of these operations."""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import errno
import hashlib
import importlib
import io
import json
import multiprocessing
import os
import signal
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

import cli

FAULTS = ("kill", "power", "EIO", "ENOSPC")
NEED_SPACE = ("open", "write", "mkdir", "fsync")  # operations that fail on a full disk
LOGS = (".jsonl",)  # appended to, and not synced: a power failure may lose rows
UNCOUNTED = "/tensorboard"  # written by a thread, in any order
TEMPORARY = ".partial"  # suffix of files that have no final name yet
HANG_S = 900
FORK = multiprocessing.get_context("fork")  # of this process, which itself starts no thread
_BY_PATH = {
    "mkdir": "mkdir",
    **dict.fromkeys(("rename", "replace"), "rename"),
    **dict.fromkeys(("unlink", "remove", "rmdir"), "unlink"),
}
_BY_HANDLE = {"fsync": "fsync", "write": "write", "sendfile": "write"}


class FileFaults:
    """Replaces ``open``, functions of ``os`` and Arrow's Parquet writer, for the rest of the life of this process.

    Args:
        folder: absolute; operations elsewhere, and those that only read, are neither counted nor changed.
        fault: ``kill``: SIGKILL, in the middle of a write. ``power``: the same, and files that were not synced lose
            their second half. ``EIO``: this operation fails. ``ENOSPC``: so do all others that need space after it.
        at: number of the operation, from 0.

    Attributes:
        operations: the kind of each operation so far.
        published: SHA-256 of everything that was renamed to a name, by path relative to ``folder``.
    """

    def __init__(self, folder: Path, fault: str = "", at: int = -1) -> None:
        self.operations: list[str] = []
        self.published: defaultdict[str, list[str]] = defaultdict(list)
        self._folder, self._fault, self._at = str(folder), fault, at
        self._unsynced: set[str] = set()
        self._opened, self._opened_by_flags = io.open, os.open

    def install(self) -> None:
        """Replaces the functions."""
        for name, operation in {**_BY_PATH, **_BY_HANDLE}.items():
            setattr(os, name, self._counted(getattr(os, name), operation))
        os.open = self._open_by_flags  # type: ignore[assignment]
        builtins.open = io.open = self._open  # type: ignore[assignment]
        start = pq.ParquetWriter.__init__

        def through_python(writer: Any, where: Any, *arguments: Any, **options: Any) -> None:
            stream = self._open(where, "wb") if isinstance(where, str | os.PathLike) else where
            start(writer, stream, *arguments, **options)
            writer.file_handle = stream  # which the writer closes

        pq.ParquetWriter.__init__ = through_python

    def place(self, target: Any, folder: int | None = None) -> str | None:
        """The path of a path or descriptor; None if its operations do not count."""
        if isinstance(target, int):
            path = os.readlink(f"/proc/self/fd/{target}")
        else:
            path = os.path.join(os.readlink(f"/proc/self/fd/{folder}") if folder else os.getcwd(), os.fsdecode(target))
        inside = f"{path}/".startswith(f"{self._folder}/")
        return path if inside and UNCOUNTED not in path else None

    def count(self, operation: str, path: str, data: memoryview | None = None, handle: int = -1) -> None:
        """Counts an operation that comes next; does not return if it is the one that fails."""
        number = len(self.operations)
        self.operations.append(operation)
        full = self._fault == "ENOSPC" and number > self._at and operation in NEED_SPACE
        if not self._fault or not (number == self._at or full):
            return
        if data is not None and self._fault != "EIO":
            _write(handle, data[: len(data) // 2])
        if self._fault == "power":
            for unsynced in self._unsynced:
                os.truncate(unsynced, os.path.getsize(unsynced) // 2)
        if self._fault in ("kill", "power"):
            os.kill(os.getpid(), signal.SIGKILL)
        code = getattr(errno, self._fault)
        raise OSError(code, os.strerror(code), path)

    def done(self, operation: str, path: str, target: Any = None) -> None:
        """Notes which files are synced and what has a final name."""
        if operation == "write" and not path.endswith(LOGS):
            self._unsynced.add(path)
        elif operation == "rename":
            if path in self._unsynced:
                self._unsynced.add(os.path.abspath(target))
            if os.path.isfile(target):
                with self._opened(target, "rb") as stream:
                    digest = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
                self.published[os.path.relpath(target, self._folder)].append(digest)
        if operation in ("fsync", "rename", "unlink"):
            self._unsynced.discard(path)

    def _counted(self, function: Any, operation: str) -> Any:
        def counted(target: Any, *arguments: Any, **options: Any) -> Any:
            path = self.place(target, options.get("dir_fd"))
            if path is None:
                return function(target, *arguments, **options)
            self.count(operation, path)
            result = function(target, *arguments, **options)
            self.done(operation, path, *arguments[:1])
            return result

        return counted

    def _open_by_flags(self, file: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        path = self.place(file, dir_fd) if flags & (os.O_WRONLY | os.O_RDWR) else None
        if path is not None:
            self.count("open", path)
        return self._opened_by_flags(file, flags, mode, dir_fd=dir_fd)

    def _open(self, file: Any, mode: str = "r", buffering: int = -1, *text: Any, **options: Any) -> Any:
        path = None if isinstance(file, int) or not set(mode) & set("wax+") else self.place(file)
        if path is None:
            return self._opened(file, mode, buffering, *text, **options)
        self.count("open", path)
        raw = _CountedFile(path, mode.replace("b", "").replace("t", ""))
        raw.faults = self
        buffer = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffer if "b" in mode else io.TextIOWrapper(buffer, *text, **options)


class _CountedFile(io.FileIO):
    faults: FileFaults

    def write(self, data: Any, /) -> int:
        path = str(self.name)
        self.faults.count("write", path, memoryview(data).cast("B"), self.fileno())
        written = super().write(data)
        self.faults.done("write", path)
        return written


_write = os.write  # also once it is replaced


@dataclasses.dataclass(frozen=True)
class Ended:
    """What a command left."""

    code: int  # negative: the signal that ended it
    printed: list[str]
    operations: list[str]  # as in FileFaults; empty if the command was killed
    published: dict[str, list[str]]


def run(words: list[str], out: Path, fault: str = "", at: int = -1) -> Ended:
    """Runs a command in a new process, with a fault at an operation on the files of ``out``."""
    printed, report = out.with_name("printed"), out.with_name("report")
    report.unlink(missing_ok=True)
    code = in_process(_run, words, FileFaults(out, fault, at), printed, report)
    operations, published, imported = json.loads(report.read_text()) if report.exists() else ([], {}, [])
    for name in imported:  # here, so that the next process has them
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    return Ended(code, printed.read_text(errors="replace").splitlines() or ["nothing"], operations, published)


def _run(words: list[str], faults: FileFaults, printed: Path, report: Path) -> None:
    with open(printed, "w") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    torch.set_num_threads(1)  # the tensors are small
    faults.install()
    try:
        cli.main(words, prog_name="cli.py")
    finally:
        report.write_text(json.dumps([faults.operations, faults.published, sorted(sys.modules)]))


def in_process(function: Any, *arguments: Any, **options: Any) -> int:
    """Calls a function in a new process; returns the exit code, negative for a signal."""
    process = FORK.Process(target=function, args=arguments, kwargs=options)
    process.start()
    process.join(HANG_S)
    if process.exitcode is None:
        process.kill()
        process.join()
        sys.exit(f"{function.__name__}: nothing for {HANG_S} s; arguments: {arguments}")
    return process.exitcode
