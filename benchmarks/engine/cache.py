"""Embeddings on disk, by (network, image, preparation): a second score of the same network costs no forward pass."""

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

_FULL = 4096  # embeddings a file
_EVERY_S = 30.0  # seconds between writes of a file that is not full: what a killed run can lose
_HEADER = struct.Struct("<8sII")  # name of the format, embeddings, their dimensions; then keys, checksums, vectors
_MAGIC = b"lrfr-emb"
_KEY, _CHECK, _FLOAT = 16, 8, 4  # bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class _File:
    """One file, mapped. keys: (N, 16) uint8.  checks: (N,) uint64.  vectors: (N, D) float32."""

    keys: np.ndarray
    checks: np.ndarray
    vectors: np.ndarray


class EmbeddingCache:
    """One network's embeddings: files of some thousand that only their writer replaces: processes may share it.

    A file that is damaged is deleted, and an embedding whose checksum is wrong is not found: both are made anew. A
    folder that cannot be used, or a disk that is full, is told once on stderr; from there on nothing is kept.
    A context manager; leaving it writes what is not yet on disk.

    Args:
        folder: of this network and nothing else.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._where: dict[bytes, list[tuple[_File, int]]] = {}
        self._new: dict[bytes, np.ndarray] = {}
        self._keeps = True
        self._start()

    def __enter__(self) -> EmbeddingCache:
        with self._or_warn():
            self._folder.mkdir(parents=True, exist_ok=True)
            for path in self._folder.glob("*.emb"):
                if path.is_file():
                    self._open(path)
        return self

    def __exit__(self, *error: object) -> None:
        if self._new:
            self._write()

    def get(self, key: bytes) -> np.ndarray | None:
        """The (D,) float32 embedding of a 16-byte key, if there is a sound one. Any thread may ask."""
        new = self._new.get(key)
        if new is not None:
            return new
        for content, row in self._where.get(key, ()):
            vector = np.array(content.vectors[row])
            if content.checks[row] == _check(key, vector):
                return vector
        return None

    def put(self, key: bytes, vector: np.ndarray) -> None:
        """Keeps a (D,) float32 embedding."""
        if not self._keeps:
            return
        self._new[key] = vector
        full = len(self._new) >= _FULL
        if full or time.monotonic() >= self._due:
            self._write()
        if full and self._keeps:
            self._open(self._path)  # mapped: millions of embeddings need not fit into memory
            self._start()

    def _start(self) -> None:
        """A new file, to be."""
        self._path = self._folder / f"{os.getpid()}-{uuid.uuid4().hex[:12]}.emb"
        self._new = {}
        self._due = time.monotonic() + _EVERY_S

    def _write(self) -> None:
        """Writes the new embeddings, in place of those of them that were written before."""
        vectors = np.stack(list(self._new.values())).astype("<f4")
        keys = np.frombuffer(b"".join(self._new), np.uint8).reshape(len(vectors), _KEY)
        checks = np.array([_check(key, vector) for key, vector in self._new.items()], "<u8")
        with self._or_warn(), whole_file(self._path) as temporary, open(temporary, "wb") as stream:
            stream.write(_HEADER.pack(_MAGIC, *vectors.shape))
            for part in (keys, checks, vectors):
                stream.write(part.data)
        self._due = time.monotonic() + _EVERY_S

    @contextlib.contextmanager
    def _or_warn(self) -> Iterator[None]:
        """Makes an error of the file system the end of keeping, not of scoring."""
        try:
            yield
        except OSError as error:
            self._keeps, self._new = False, {}
            print(
                f"warning: {self._folder}: {error.strerror}; embeddings are not kept from here on: free or mend it,"
                " or pass --no-cache",
                file=sys.stderr,
            )

    def _open(self, path: Path) -> None:
        """Takes up a file; deletes a damaged one, and does without one that cannot be opened."""
        try:
            content = _read(path)
        except OSError:
            return
        except (ValueError, struct.error):
            with contextlib.suppress(OSError):
                path.unlink()
            return
        for row, key in enumerate(content.keys):
            self._where.setdefault(key.tobytes(), []).append((content, row))


def _read(path: Path) -> _File:
    """A file that was written whole. Raises: OSError: it cannot be opened. ValueError, struct.error: it is damaged."""
    content = np.memmap(path, np.uint8, "r")
    magic, count, dimensions = _HEADER.unpack(content[: _HEADER.size].tobytes())
    ends = np.cumsum([_HEADER.size, count * _KEY, count * _CHECK, count * dimensions * _FLOAT])
    if magic != _MAGIC or ends[-1] != len(content) or not count or not dimensions:
        raise ValueError(f"{path}: damaged")
    return _File(
        keys=content[ends[0] : ends[1]].reshape(count, _KEY),
        checks=np.frombuffer(content[ends[1] : ends[2]], "<u8"),
        vectors=np.frombuffer(content[ends[2] :], "<f4").reshape(count, dimensions),
    )


def _check(key: bytes, vector: np.ndarray) -> int:
    return xxhash.xxh3_64_intdigest(key + np.ascontiguousarray(vector, "<f4").tobytes())
