"""The embedding cache: scoring a network again needs no forward pass."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import xxhash

from shards.files import StrPath, write_bytes
from shards.messages import print_stderr

FILE_EMBEDDINGS = 4096  # in a full file
FLUSH_S = 30.0  # between writes of a file that is not full: the most work that a killed run loses
# A file is the width of its rows as uint32, and the rows: checksum, key, float32 vector.
HEADER_BYTES = 4
CHECKSUM_BYTES, PREFIX_BYTES = 8, 24  # of the checksum; of checksum and key


class EmbeddingCache:
    """The embeddings of one network on disk; a context manager.

    Each process writes its own files of up to ``FILE_EMBEDDINGS`` embeddings, so that processes can share the folder.
    Damaged files are deleted, and embeddings with a wrong checksum are ignored. If the folder is unusable or the disk
    is full, the cache prints one warning on stderr and stores nothing more. Leaving the context writes what is left.

    Args:
        folder: holds the embeddings of this network only.
    """

    def __init__(self, folder: StrPath) -> None:
        self._folder = Path(folder)
        self._stored: dict[bytes, list[tuple[np.ndarray, int]]] = {}  # rows of a mapped file, row
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
        for rows, row in self._stored.get(key, ()):
            content = rows[row].tobytes()
            if content == stored_row(content[CHECKSUM_BYTES:]):
                return np.frombuffer(content, "<f4", offset=PREFIX_BYTES)
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
        rows = [stored_row(key + vector.astype("<f4").tobytes()) for key, vector in self._pending.items()]
        with self._disabled_on_error():
            write_bytes(self._path, b"".join([file_header(len(rows[0])), *rows]))
        self._flush_at = time.monotonic() + FLUSH_S

    @contextlib.contextmanager
    def _disabled_on_error(self) -> Iterator[None]:
        """On an OSError, warns and stops caching; scoring continues."""
        try:
            yield
        except OSError as error:
            self._writable, self._pending = False, {}
            print_stderr(
                f"warning: {self._folder}: {error.strerror}; embeddings are no longer cached: make the folder writable,"
                " or pass --no-cache"
            )

    def _open(self, path: Path) -> None:
        """Indexes a file. Deletes it if it is damaged; ignores it if it cannot be opened."""
        try:
            rows = mapped_rows(path)
        except OSError:
            return
        except ValueError:
            rows = np.empty((0, 0))
        if not len(rows):
            with contextlib.suppress(OSError):
                path.unlink()
        for row, key in enumerate(rows[:, CHECKSUM_BYTES:PREFIX_BYTES]):
            self._stored.setdefault(key.tobytes(), []).append((rows, row))


def file_header(width: int) -> bytes:
    """The start of a file whose rows have ``width`` bytes."""
    return np.array(width, "<u4").tobytes()


def mapped_rows(path: Path) -> np.ndarray:
    """The (N, width) uint8 rows of a file, mapped.

    Raises:
        OSError: it cannot be opened.
        ValueError: it does not consist of a width and such rows.
    """
    content = np.asarray(np.memmap(path, np.uint8, "r"))
    width = int(content[:HEADER_BYTES].view("<u4")[0])
    if width <= PREFIX_BYTES or width % 4:
        raise ValueError(f"rows of {width} bytes")
    return content[HEADER_BYTES:].reshape(-1, width)


def stored_row(content: bytes) -> bytes:
    """A key and its vector, with their checksum in front."""
    return xxhash.xxh3_64_digest(content) + content
