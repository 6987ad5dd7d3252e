"""Embeddings on disk, by (network, image, preparation): a second score of the same network costs no forward pass."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import struct
import uuid
from pathlib import Path

import numpy as np
import xxhash

from shards.files import whole_file

_FLUSH = 4096  # embeddings a file: what a killed run can lose
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
    """One network's embeddings: files of some thousand each, never changed once written, so any number of processes may share it.

    A file that cannot be read is deleted, and an embedding whose checksum is wrong is not found: both are made anew.
    A context manager; leaving it writes what is not yet on disk.

    Args:
        folder: of this network and nothing else.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._where: dict[bytes, list[tuple[_File, int]]] = {}
        self._new: dict[bytes, np.ndarray] = {}

    def __enter__(self) -> EmbeddingCache:
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in self._folder.glob("*.emb"):
            content = _read(path)
            if content is None:
                path.unlink(missing_ok=True)
            else:
                self._know(content)
        return self

    def __exit__(self, *error: object) -> None:
        self._flush()

    def get(self, key: bytes) -> np.ndarray | None:
        """The (D,) float32 embedding of a 16-byte key, if there is a sound one."""
        if key in self._new:
            return self._new[key]
        for content, row in self._where.get(key, ()):
            vector = np.array(content.vectors[row])
            if content.checks[row] == _check(key, vector):
                return vector
        return None

    def put(self, key: bytes, vector: np.ndarray) -> None:
        """Keeps a (D,) float32 embedding."""
        self._new[key] = vector
        if len(self._new) >= _FLUSH:
            self._flush()

    def _flush(self) -> None:
        if not self._new:
            return
        vectors = np.stack(list(self._new.values())).astype("<f4")
        keys = np.frombuffer(b"".join(self._new), np.uint8).reshape(len(vectors), _KEY)
        checks = np.array([_check(key, vector) for key, vector in self._new.items()], "<u8")
        name = f"{os.getpid()}-{uuid.uuid4().hex[:12]}.emb"
        with whole_file(self._folder / name) as temporary, open(temporary, "wb") as stream:
            stream.write(_HEADER.pack(_MAGIC, *vectors.shape))
            for part in (keys, checks, vectors):
                stream.write(part.data)
        self._new = {}
        content = _read(self._folder / name)  # mapped: millions of embeddings need not fit into memory
        if content is not None:
            self._know(content)

    def _know(self, content: _File) -> None:
        for row, key in enumerate(content.keys):
            self._where.setdefault(key.tobytes(), []).append((content, row))


def _read(path: Path) -> _File | None:
    """A file that was written whole; None for any other."""
    with contextlib.suppress(OSError, ValueError, struct.error):
        content = np.memmap(path, np.uint8, "r")
        magic, count, dimensions = _HEADER.unpack(content[: _HEADER.size].tobytes())
        ends = np.cumsum([_HEADER.size, count * _KEY, count * _CHECK, count * dimensions * _FLOAT])
        if magic == _MAGIC and ends[-1] == len(content) and count and dimensions:
            return _File(
                keys=content[ends[0] : ends[1]].reshape(count, _KEY),
                checks=np.frombuffer(content[ends[1] : ends[2]], "<u8"),
                vectors=np.frombuffer(content[ends[2] :], "<f4").reshape(count, dimensions),
            )
    return None


def _check(key: bytes, vector: np.ndarray) -> int:
    return xxhash.xxh3_64_intdigest(key + np.ascontiguousarray(vector, "<f4").tobytes())
