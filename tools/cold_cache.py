"""Measures how many bytes are fetched from disk for the bytes that are read, with a cold page cache."""

from __future__ import annotations

import ctypes
import dataclasses
import mmap
import os
from pathlib import Path

import numpy as np

from shards.index import ShardIndex, ShardReader
from shards.schema import shard_file


class UncountedError(Exception):
    """The file system does not allow the measurement."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColdRead:
    """Bytes wanted, bytes fetched, and how the fetched bytes were counted."""

    wanted: int
    fetched: int
    counted: str


def cold_read(index: ShardIndex, rows: np.ndarray) -> ColdRead:
    """Reads images as the loader does, after dropping their shards from the page cache.

    Args:
        rows: (N,) of the index.

    Raises:
        UncountedError: the shards stay cached, as on a file system in memory, or fetched bytes are not counted.
    """
    tars = [index.root / shard_file(shard, "tar") for shard in np.unique(index.shard[rows]).tolist()]
    _evict(tars)
    if cached := sum(map(_cached_bytes, tars)):
        raise UncountedError(f"{cached:,} bytes of the shards of {index.root} stay cached; try a folder on a disk")
    before = _fetched_bytes()
    with ShardReader(index) as reader:
        reader.padded(rows)
    fetched, counted = _fetched_bytes() - before, "read_bytes of /proc/self/io"
    if fetched == 0:  # a file system without a block device
        fetched, counted = sum(map(_cached_bytes, tars)), "pages in the cache afterwards"
    if fetched == 0:
        raise UncountedError(f"reading {index.root} changes neither /proc/self/io nor the page cache")
    return ColdRead(wanted=int(index.size[rows].sum()), fetched=fetched, counted=counted)


def _evict(paths: list[Path]) -> None:
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)  # pages that are not on disk cannot be dropped
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def _cached_bytes(path: Path) -> int:
    """Bytes of a file in the page cache, whole pages."""
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapping:
        pages = np.zeros(-(-len(mapping) // mmap.PAGESIZE), np.uint8)
        view = np.frombuffer(mapping, np.uint8)
        start, length = ctypes.c_void_p(view.ctypes.data), ctypes.c_size_t(len(mapping))
        del view  # a mapping with views cannot be closed
        if ctypes.CDLL(None, use_errno=True).mincore(start, length, ctypes.c_void_p(pages.ctypes.data)):
            raise UncountedError(f"{path}: mincore: {os.strerror(ctypes.get_errno())}")
    return int((pages & 1).sum()) * mmap.PAGESIZE


def _fetched_bytes() -> int:
    """Bytes that this process has fetched from block devices."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("read_bytes:")).split()[1])
