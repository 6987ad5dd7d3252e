"""Embeddings of a list of requests, and the processes that share the work."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from pipeline.images.decode import ImageError
from pipeline.prepare import Request

BLOCK_BATCHES = 4  # in a block; with fewer, more files have requests in two blocks, and are read twice


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """What one process adds to ``Embedded``: fields of the same names, for some rows."""

    rows: np.ndarray
    vectors: np.ndarray
    missing: dict[str, ImageError]
    computed: int


class Embedded:
    """Embeddings of N requests, filled in any order.

    Attributes:
        vectors: (N, D) float32 network outputs, not normalised; zero where ``valid`` is False.
        valid: (N,) bool.
        missing: the ``name`` of each unusable image, and the reason.
        computed: number of embeddings that the network computed.
    """

    def __init__(self, count: int) -> None:
        self.vectors = np.zeros((count, 1), np.float32)
        self.valid = np.zeros(count, bool)
        self.missing: dict[str, ImageError] = {}
        self.computed = 0

    @property
    def cached(self) -> int:
        """Number of embeddings from the cache."""
        return int(self.valid.sum()) - self.computed

    def put(self, rows: int | np.ndarray, vectors: np.ndarray) -> None:
        """Sets the embedding of a request, or of several; the first one sets D. Raises: TypeError: another D."""
        length = vectors.shape[-1]
        if self.vectors.shape[1] != length:
            if self.valid.any():
                known = self.vectors.shape[1]
                raise TypeError(f"embeddings of {known} and of {length} numbers: a network has one length")
            self.vectors = np.zeros((len(self.valid), length), np.float32)
        self.vectors[rows], self.valid[rows] = vectors, True

    def part(self) -> Part:
        """What is filled."""
        rows = np.flatnonzero(self.valid)
        return Part(rows=rows, vectors=self.vectors[rows], missing=self.missing, computed=self.computed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """Requests that several processes embed, and the folders of the images, see ``SourceWatch``."""

    requests: list[Request]
    folders: list[Path]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Team:
    """Several processes that embed together, seen from the first one, which alone reads data sets and scores.

    Attributes:
        size: number of processes.
        share: sends the others the job, runs the function, and returns what it and those of all others return.
    """

    size: int
    share: Callable[[Job, Callable[[], Part]], list[Part]]


def blocks_of(requests: list[Request], batch_size: int) -> tuple[dict[str, list[int]], np.ndarray]:
    """Divides requests into blocks of whole batches, which processes embed in turn.

    A batch never holds requests of two blocks, so that the batches do not depend on the number of processes: the
    network's output for an image depends on the size of its batch, in the last digits.

    Returns:
        The rows of each image file, in the order of embedding, and the (N,) block of each row.
    """
    rows: dict[str, list[int]] = {}
    for row, request in enumerate(requests):
        rows.setdefault(request.name, []).append(row)
    blocks = np.empty(len(requests), np.int64)
    blocks[[row for of_file in rows.values() for row in of_file]] = np.arange(len(requests)) // (
        BLOCK_BATCHES * batch_size
    )
    return rows, blocks


def joined(parts: Iterable[Part], requests: list[Request]) -> Embedded:
    """What several processes have embedded, as one process would have."""
    embedded = Embedded(len(requests))
    missing: dict[str, ImageError] = {}
    for part in parts:
        if len(part.rows):
            embedded.put(part.rows, part.vectors)
        missing |= part.missing
        embedded.computed += part.computed
    lost = [row for row, request in enumerate(requests) if request.name in missing]
    embedded.missing = {name: missing[name] for name in (requests[row].name for row in lost)}
    embedded.computed -= int(embedded.valid[lost].sum())  # other requests of the same file
    embedded.vectors[lost], embedded.valid[lost] = 0, False
    return embedded
