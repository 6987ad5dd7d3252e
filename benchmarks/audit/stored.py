"""The images of a shard set as vectors and as small pictures."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import threading
from pathlib import Path

import cv2
import numpy as np

from benchmarks.audit.picture import VIEW_PX, view
from benchmarks.engine.runner import Engine
from benchmarks.engine.shard_set import set_requests
from benchmarks.scoring.vectors import unit_length
from pipeline.images.decode import ImageError, decode_bytes
from pipeline.progress import Progress
from pipeline.spec import spec_of
from shards.errors import ShardError
from shards.files import naming
from shards.index import ShardIndex, ShardReader

GROUP_ROWS = 8192  # images embedded before their vectors are stored


class StoredImages:
    """Reads images of a shard set; threads may share it. A context manager."""

    def __init__(self, index: ShardIndex) -> None:
        self.index, self._lock = index, threading.Lock()
        self._reader, self._spec = ShardReader(index), spec_of(index.manifest)

    def __enter__(self) -> StoredImages:
        return self

    def __exit__(self, *error: object) -> None:
        self._reader.close()

    def jpeg(self, row: int) -> bytes:
        """The JPEG of a row. Raises: ShardError: it is damaged."""
        with self._lock:  # a reader closes shards when too many are open
            return self._reader.image(row)

    def image(self, row: int) -> np.ndarray:
        """(S, S, 3) uint8 BGR. Raises: ShardError: it is damaged, or not of the size that the manifest states."""
        size = self._spec.size
        try:
            image = decode_bytes(self.jpeg(row))
        except ImageError as error:
            raise ShardError(f"{self.index.root}: image {self.index.key(row)}: {error}") from None
        if image.shape[:2] != (size, size):
            raise ShardError(f"{self.index.root}: image {self.index.key(row)} is not of {size} x {size} px")
        return image

    def grey(self, row: int) -> np.ndarray:
        """(S, S) uint8."""
        return cv2.cvtColor(self.image(row), cv2.COLOR_BGR2GRAY)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Embeddings:
    """N images as vectors and as small pictures.

    Attributes:
        vectors: (N, D) float16 of unit length; zero where the network's output is zero or there is no image.
        views: (N, VIEW_PX, VIEW_PX) uint8, see ``picture.view``.
    """

    vectors: np.ndarray
    views: np.ndarray


def scratch(folder: Path, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """An array in a file without a name in ``folder``: it may exceed the memory, and vanishes with the process."""
    with naming(folder), tempfile.TemporaryFile(dir=folder) as file:
        # a full disk is an error now, not a signal later
        os.posix_fallocate(file.fileno(), 0, int(np.prod(shape)) * np.dtype(dtype).itemsize)
        return np.memmap(file, dtype, "r+", shape=shape)


def embed_set(engine: Engine, images: StoredImages, folder: Path) -> Embeddings:
    """Embeds the stored images, in the order of the tars.

    Args:
        folder: for the arrays.

    Raises:
        ProtocolError: the network cannot take the images, or an embedding is not finite.
        ShardError: an image is damaged.
    """
    index = images.index
    spec, order = spec_of(index.manifest), np.lexsort([index.offset, index.shard])
    views = scratch(folder, (len(index), VIEW_PX, VIEW_PX), np.uint8)
    vectors = None
    with Progress("embed", len(index)) as progress:
        for start in range(0, len(order), GROUP_ROWS):
            rows = order[start : start + GROUP_ROWS]
            requests = set_requests(index, rows, engine.spec)
            for row in rows.tolist():
                views[row] = view(images.grey(row), spec.template)  # reads and checks the image
            embedded = engine.embed_all(requests, progress)
            for name, error in embedded.missing.items():
                raise ShardError(f"{name}: {error}")
            if vectors is None:
                vectors = scratch(folder, (len(index), embedded.vectors.shape[1]), np.float16)
            vectors[rows] = unit_length(embedded.vectors)
    assert vectors is not None  # a set is never empty
    return Embeddings(vectors=vectors, views=views)
