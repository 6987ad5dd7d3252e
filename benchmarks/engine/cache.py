"""The embedding cache: scoring a network again needs no forward pass."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import struct
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xxhash

from shards.files import whole_file

FILE_EMBEDDINGS = 4096  # in a full file
FLUSH_S = 30.0  # between writes of a file that is not full: a killed run loses no more than that
_MAGIC = b"lrfr-emb"
_HEADER = struct.Struct("<8sII")  # magic, number of embeddings, dimension; keys, checksums and vectors follow
_KEY_BYTES, _CHECKSUM_BYTES, _FLOAT_BYTES = 16, 8, 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class _CacheFile:
    """A memory-mapped cache file.

    Attributes:
        keys: (N, 16) uint8.
        checksums: (N,) uint64.
        vectors: (N, D) float32.
    """

    keys: np.ndarray
    checksums: np.ndarray
    vectors: np.ndarray


class EmbeddingCache:
    """The embeddings of one network on disk; a context manager.

    Each process writes its own files of up to ``FILE_EMBEDDINGS`` embeddings, so that processes can share the folder.
    Damaged files are deleted, and embeddings with a wrong checksum are ignored. If the folder is unusable or the disk
    is full, the cache prints one warning on stderr and stores nothing more. Leaving the context writes what is left.

    Args:
        folder: holds the embeddings of this network only.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stored: dict[bytes, list[tuple[_CacheFile, int]]] = {}
        self._pending: dict[bytes, np.ndarray] = {}
        self._writable = True
        self._start_file()

    def __enter__(self) -> EmbeddingCache:
        with self._disabled_on_error():
            self._folder.mkdir(parents=True, exist_ok=True)
            for path in self._folder.glob("*.emb"):
                if path.is_file():
                    self._open(path)
        return self

    def __exit__(self, *error: object) -> None:
        if self._pending:
            self._write()

    def get(self, key: bytes) -> np.ndarray | None:
        """The (D,) float32 embedding of a 16-byte key, or None. Thread-safe."""
        pending = self._pending.get(key)
        if pending is not None:
            return pending
        for file, row in self._stored.get(key, ()):
            vector = np.array(file.vectors[row])
            if file.checksums[row] == _checksum(key, vector):
                return vector
        return None

    def put(self, key: bytes, vector: np.ndarray) -> None:
        """Stores a (D,) float32 embedding. Call it from one thread only."""
        if not self._writable:
            return
        self._pending[key] = vector
        full = len(self._pending) >= FILE_EMBEDDINGS
        if full or time.monotonic() >= self._flush_at:
            self._write()
        if full and self._writable:
            self._open(self._path)  # memory-mapped: millions of embeddings may exceed the memory
            self._start_file()

    def _start_file(self) -> None:
        self._path = self._folder / f"{os.getpid()}-{uuid.uuid4().hex[:12]}.emb"
        self._pending = {}
        self._flush_at = time.monotonic() + FLUSH_S

    def _write(self) -> None:
        """Writes the pending embeddings; replaces the earlier version of the file."""
        vectors = np.stack(list(self._pending.values())).astype("<f4")
        keys = np.frombuffer(b"".join(self._pending), np.uint8).reshape(len(vectors), _KEY_BYTES)
        checksums = np.array([_checksum(key, vector) for key, vector in self._pending.items()], "<u8")
        with self._disabled_on_error(), whole_file(self._path) as temporary, open(temporary, "wb") as stream:
            stream.write(_HEADER.pack(_MAGIC, *vectors.shape))
            for part in (keys, checksums, vectors):
                stream.write(part.data)
        self._flush_at = time.monotonic() + FLUSH_S

    @contextlib.contextmanager
    def _disabled_on_error(self) -> Iterator[None]:
        """On an OSError, warns and stops caching; scoring goes on."""
        try:
            yield
        except OSError as error:
            self._writable, self._pending = False, {}
            print(
                f"warning: {self._folder}: {error.strerror}; embeddings are no longer cached: make the folder writable,"
                " or pass --no-cache",
                file=sys.stderr,
            )

    def _open(self, path: Path) -> None:
        """Indexes a file. Deletes it if it is damaged; ignores it if it cannot be opened."""
        try:
            file = _read(path)
        except OSError:
            return
        except (ValueError, struct.error):
            with contextlib.suppress(OSError):
                path.unlink()
            return
        for row, key in enumerate(file.keys):
            self._stored.setdefault(key.tobytes(), []).append((file, row))


def _read(path: Path) -> _CacheFile:
    """Maps a complete file. Raises: OSError: it cannot be opened. ValueError, struct.error: it is damaged."""
    content = np.memmap(path, np.uint8, "r")
    magic, count, dimension = _HEADER.unpack(content[: _HEADER.size].tobytes())
    ends = np.cumsum([_HEADER.size, count * _KEY_BYTES, count * _CHECKSUM_BYTES, count * dimension * _FLOAT_BYTES])
    if magic != _MAGIC or ends[-1] != len(content) or not count or not dimension:
        raise ValueError(f"{path}: damaged")
    return _CacheFile(
        keys=content[ends[0] : ends[1]].reshape(count, _KEY_BYTES),
        checksums=np.frombuffer(content[ends[1] : ends[2]], "<u8"),
        vectors=np.frombuffer(content[ends[2] :], "<f4").reshape(count, dimension),
    )


def _checksum(key: bytes, vector: np.ndarray) -> int:
    return xxhash.xxh3_64_intdigest(key + np.ascontiguousarray(vector, "<f4").tobytes())
