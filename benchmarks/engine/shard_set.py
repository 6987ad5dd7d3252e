"""The images of a shard set as a network sees them, and its embeddings of all of them in one file."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterator

import numpy as np
import xxhash

from benchmarks.engine.cache import CHECKSUM_BYTES, HEADER_BYTES, PREFIX_BYTES, file_header, mapped_rows, stored_row
from benchmarks.engine.runner import Engine
from benchmarks.errors import ProtocolError
from benchmarks.scoring.vectors import unit_length, vector_norms
from pipeline.images.file_part import FilePart
from pipeline.prepare import Request
from pipeline.progress import Progress
from pipeline.sources.templates import template_of
from pipeline.spec import Preprocessing, spec_of
from shards.arguments import check_argument, check_path
from shards.errors import LockedError, ShardError
from shards.files import StrPath, write_bytes
from shards.index import EXPECTED_INDEX, ShardIndex, ShardReader
from shards.locks import locked
from shards.messages import counted, print_stderr
from shards.schema import shard_file

GROUP_ROWS = 1024  # embedded by each process before they are stored: the most work that a killed run loses
PROBES = 16  # images that are embedded again if a network's digest does not cover all that it does
SAME_COSINE = 0.999
POLL_S = 1.0


def set_requests(index: ShardIndex, rows: np.ndarray, network: Preprocessing) -> list[Request]:
    """How a network sees stored images: as they are, or framed by another template.

    Raises:
        ProtocolError: the images are aligned, but the network was trained on unaligned ones only.
    """
    spec = spec_of(index.manifest)
    if spec.aligned and not network.aligned:
        raise ProtocolError(
            f"{index.root}: the images are aligned (template {spec.template}), but the network was trained on"
            " unaligned images only; choose another network"
        )
    template = template_of(spec) if spec.aligned else None
    if template is not None and template.is_of(network):
        template = None
    return [
        Request(
            path=index.root / shard_file(int(index.shard[row]), "tar"),
            part=FilePart(number=row + 1, offset=int(index.offset[row]), size=int(index.size[row]), digest=b""),
            template=template,
        )
        for row in rows.tolist()
    ]


class SetEmbeddings:
    """The embeddings, of length 1, of all images of a shard set by one network: a file with a row for each image.

    A row is that of ``EmbeddingCache``: a checksum, a key, and a float32 vector. Rows are written in place. A row whose
    checksum or key is wrong counts as missing, so that a killed run loses only what it has not written, and damage only
    the rows that it hits.

    Args:
        path: the file.
        network: digest of the network; part of the keys, as are the hashes of index and image.
    """

    def __init__(self, path: StrPath, index: ShardIndex, network: str) -> None:
        check_argument(isinstance(index, ShardIndex), "index", index, EXPECTED_INDEX)
        check_argument(isinstance(network, str), "network", network, "the digest of the network, as text")
        self.path, self._index, self._network = check_path("path", path), index, network
        self._rows: np.ndarray | None = None  # (N, width) uint8, mapped
        self._map()

    def __len__(self) -> int:
        return len(self._index)

    @property
    def length(self) -> int:
        """Number of values of an embedding. Raises: ProtocolError: there are none."""
        return (self._mapped().shape[1] - PREFIX_BYTES) // 4

    def complete(self, engine: Engine, *, verify: bool = False) -> int:
        """Embeds and stores what is not stored. Waits while another process does.

        Args:
            verify: first embed a few images again; if they have changed, embed all.

        Returns:
            The number of images that were embedded.

        Raises:
            ProtocolError: the network cannot take the images, or an embedding is not finite or zero.
            ShardError: an image is damaged.
            OSError: the file cannot be written.
        """
        with self._alone():
            missing = self._missing()
            if verify and not self._still_hold(engine, missing):
                print_stderr(f"{self.path}: the network returns other embeddings now: computed again")
                self._discard()
                missing = self._missing()
            if len(missing):
                self._fill(engine, missing)
        return len(missing)

    def check_complete(self) -> None:
        """Raises: ProtocolError: an embedding is missing."""
        self._map()
        if count := len(self._missing()):
            raise ProtocolError(
                f"{self.path}: {counted(count, 'embedding')} missing, which only the teacher can compute: name it with"
                " --teacher"
            )

    def open(self) -> None:
        """Maps the file that another process has completed. Raises: ProtocolError: this process does not see it."""
        self._map()
        if self._rows is None:
            raise ProtocolError(
                f"{self.path}: not found, though the first process has written it; use an $LRFR_DATA that all share"
            )

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            for attempt in itertools.count():
                try:
                    stack.enter_context(locked(self.path.parent, "embedding"))
                    break
                except LockedError:
                    if not attempt:
                        print_stderr(f"{self.path.parent}: another process computes these embeddings; waiting for it")
                    time.sleep(POLL_S)
            self._map()
            yield

    def _missing(self) -> np.ndarray:
        """The rows that are to be embedded, in the order of the tars. Tells how many are damaged."""
        if self._rows is None:
            missing = np.arange(len(self))
        else:
            found = np.fromiter(map(self._is_stored, range(len(self))), bool, len(self))
            missing = np.flatnonzero(~found)
            if damaged := sum(bool(self._rows[row].any()) for row in missing.tolist()):
                print_stderr(f"{self.path}: {counted(damaged, 'row')} damaged, to be computed again")
        return missing[np.lexsort([self._index.offset[missing], self._index.shard[missing]])]

    def _fill(self, engine: Engine, missing: np.ndarray) -> None:
        group = GROUP_ROWS * (engine.team.size if engine.team else 1)
        with ShardReader(self._index) as reader, Progress("teacher", len(self)) as progress:
            progress.skip(len(self) - len(missing))
            for start in range(0, len(missing), group):
                rows = missing[start : start + group]
                reader.padded(rows)  # checks the images
                self._store(rows, self._embedded(engine, rows, progress))

    def _still_hold(self, engine: Engine, missing: np.ndarray) -> bool:
        """Whether the network returns for a few images what is stored."""
        stored = np.setdiff1d(np.arange(len(self)), missing)
        if not len(stored):
            return True
        rows = stored[np.unique(np.linspace(0, len(stored) - 1, PROBES).astype(np.int64))]
        with Progress("teacher, check", len(rows)) as progress:
            vectors = self._embedded(engine, rows, progress)
        return vectors.shape[1] == self.length and bool(((vectors * self(rows)).sum(1) >= SAME_COSINE).all())

    def _discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._rows = None

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """The (n, D) float32 embeddings of (n,) rows. Raises: ProtocolError: there is no file."""
        return self._mapped()[rows][:, PREFIX_BYTES:].view("<f4")

    def _mapped(self) -> np.ndarray:
        if self._rows is None:
            raise ProtocolError(f"{self.path}: not found, or damaged; run the same command again")
        return self._rows

    def _map(self) -> None:
        """Maps the file, if it is one of this set's size."""
        self._rows = None
        if not self.path.is_file():  # a pipe would block
            return
        with contextlib.suppress(OSError, ValueError):
            rows = mapped_rows(self.path)
            if len(rows) == len(self):
                self._rows = rows

    def _is_stored(self, row: int) -> bool:
        content = self._mapped()[row].tobytes()
        return content[CHECKSUM_BYTES:PREFIX_BYTES] == self._key(row) and content == stored_row(
            content[CHECKSUM_BYTES:]
        )

    def _key(self, row: int) -> bytes:
        """16 bytes that no other network, set, image or row has."""
        index = self._index
        facts = f"{self._network} {index.manifest.index_digest} {index.xxh3[row]} {row}"
        return xxhash.xxh3_128_digest(facts.encode())

    def _embedded(self, engine: Engine, rows: np.ndarray, progress: Progress) -> np.ndarray:
        """(n, D) float32 of length 1."""
        embedded = engine.embed_all(set_requests(self._index, rows, engine.spec), progress)
        for name, error in embedded.missing.items():
            raise ShardError(f"{name}: {error}")
        vectors = unit_length(embedded.vectors)
        for row in rows[vector_norms(vectors) < 0.5][:1].tolist():
            raise ProtocolError(
                f"{self._index.root}: the network's embedding of image {self._index.key(row)} is zero, which is no"
                " direction; choose another network"
            )
        return vectors

    def _store(self, rows: np.ndarray, vectors: np.ndarray) -> None:
        width = PREFIX_BYTES + 4 * vectors.shape[1]
        with self._writable(width) as handle:
            for row, vector in zip(rows.tolist(), vectors, strict=True):
                content = stored_row(self._key(row) + vector.astype("<f4").tobytes())
                os.pwrite(handle, content, HEADER_BYTES + row * width)
            os.fsync(handle)

    @contextlib.contextmanager
    def _writable(self, width: int) -> Iterator[int]:
        """Opens the file for writing; creates it if there is none."""
        if self._rows is None:
            write_bytes(self.path, file_header(width))
            os.truncate(self.path, HEADER_BYTES + width * len(self))
            self._map()
        elif self._rows.shape[1] != width:
            self._discard()
            raise ProtocolError(
                f"{self.path}: the network returns embeddings of another length now: run the same command again"
            )
        handle = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW)
        try:
            yield handle
        finally:
            os.close(handle)
