"""What a cold page cache costs: bytes that reading images fetches from disk, against the bytes wanted."""

from __future__ import annotations

import ctypes
import dataclasses
import mmap
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shards.index import ShardIndex, ShardReader
from shards.schema import shard_file


class UncountedError(Exception):
    """This file system does not let itself be measured. One line."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColdRead:
    """Bytes wanted, bytes fetched for them, and how the latter were counted."""

    wanted: int
    fetched: int
    counted: str


def cold_read(index: ShardIndex, rows: np.ndarray) -> ColdRead:
    """Reads images as the loader does, after their shards were dropped from the page cache.

    Args:
        rows: (N,) of the index.

    Raises:
        UncountedError: the shards stay cached (a file system in memory), or nobody counts what is fetched.
    """
    paths = [index.root / shard_file(shard, "tar") for shard in np.unique(index.shard[rows]).tolist()]
    tars = list({path.stat().st_ino: path for path in paths}.values())  # a made set has several names for one
    _evict(tars)
    cached = sum(map(_resident, tars))
    if cached:
        raise UncountedError(f"{cached:,} bytes of the shards of {index.root} stay cached; try a folder on a disk")
    before = _fetched()
    with ShardReader(index) as reader:
        reader.padded(rows)
    fetched, counted = _fetched() - before, "read_bytes of /proc/self/io"
    if fetched == 0:  # what a file system without a block device of its own tells
        fetched, counted = sum(map(_resident, tars)), "pages in the cache afterwards"
    if fetched == 0:
        raise UncountedError(f"reading {index.root} leaves no trace in /proc/self/io or the page cache")
    return ColdRead(wanted=int(index.size[rows].sum()), fetched=fetched, counted=counted)


def _evict(paths: Sequence[Path]) -> None:
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)  # a page that is not on disk cannot be dropped
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


def _resident(path: Path) -> int:
    """Bytes of a file that are in the page cache, whole pages."""
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapping:
        pages = np.zeros(-(-len(mapping) // mmap.PAGESIZE), np.uint8)
        view = np.frombuffer(mapping, np.uint8)
        start, length = ctypes.c_void_p(view.ctypes.data), ctypes.c_size_t(len(mapping))
        del view  # a mapping that is looked at cannot be closed
        if ctypes.CDLL(None, use_errno=True).mincore(start, length, ctypes.c_void_p(pages.ctypes.data)):
            raise UncountedError(f"{path}: mincore: {os.strerror(ctypes.get_errno())}")
    return int((pages & 1).sum()) * mmap.PAGESIZE


def _fetched() -> int:
    """Bytes that this process has had fetched from block devices."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("read_bytes:")).split()[1])
