"""The images of a benchmark, undegraded, beside a training set: the same people, the same photographs."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from benchmarks.audit.labels import Labels
from benchmarks.audit.people import NOTHING, Matches, known_people, look_up
from benchmarks.audit.photographs import Copies, LookAlikes
from benchmarks.audit.picture import VIEW_PX, detail, view
from benchmarks.audit.stored import Embeddings, StoredImages
from benchmarks.engine.runner import Engine
from benchmarks.errors import ProtocolError
from benchmarks.scoring.protocols import PairProtocol, Protocol
from benchmarks.scoring.searches import ClosedSetProtocol, OpenSetProtocol, Search
from benchmarks.scoring.vectors import unit_length
from pipeline.images.decode import ImageError
from pipeline.prepare import Request, prepare
from pipeline.progress import Progress
from pipeline.sources.watch import SourceWatch
from pipeline.spec import Preprocessing, spec_of
from shards.messages import counted, print_stderr


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overlap:
    """What a benchmark shares with a training set.

    Attributes:
        name: of the benchmark.
        root: its folder.
        requests: its images that could be used.
        copies: pairs of a row of ``requests`` and a row of the set.
        people: pairs of a row of ``requests`` and a position of an identity of the set.
    """

    name: str
    root: Path
    requests: list[Request]
    copies: Copies
    people: Matches

    def image_name(self, row: int) -> str:
        """The benchmark and the path of an image in its folder."""
        name = self.requests[row].name
        return f"{self.name}:{name.removeprefix(f'{self.root}{os.sep}')}"


def people_of(protocol: Protocol) -> np.ndarray:
    """(N,) code of the person on each request; -1 where the protocol does not say."""
    codes = np.full(len(protocol.requests), -1)
    if isinstance(protocol, PairProtocol):
        for rows in protocol.members.values():
            codes[rows] = protocol.identities
    for search in _searches(protocol):
        codes[search.probes], codes[search.gallery] = search.probe_ids, search.gallery_ids
    return codes


def _searches(protocol: Protocol) -> Iterator[Search]:
    if isinstance(protocol, ClosedSetProtocol):
        yield from protocol.searches.values()
    elif isinstance(protocol, OpenSetProtocol):
        yield protocol.search


def compare_benchmark(
    protocol: Protocol,
    engine: Engine,
    images: StoredImages,
    embeddings: Embeddings,
    labels: Labels,
    look_alikes: LookAlikes,
) -> Overlap:
    """Looks for the images and the people of a benchmark in the set.

    Raises:
        ProtocolError: the benchmark aligns faces, but the network was trained on unaligned images only.
    """
    requests, people = _undegraded(protocol)
    if not engine.spec.aligned and any(request.aligned for request in requests):
        raise ProtocolError(
            f"{protocol.name}: aligns faces by landmarks, but the network was trained on unaligned images only"
        )
    with Progress(f"embed {protocol.name}", len(requests)) as progress:
        embedded = dataclasses.replace(engine, watch=SourceWatch([protocol.root])).embed_all(requests, progress)
    if embedded.missing:
        name, error = next(iter(embedded.missing.items()))
        count = counted(len(embedded.missing), "unusable image")
        print_stderr(f"{protocol.name}: {count} left out, the first one is {name}: {error}")
    rows = np.flatnonzero(embedded.valid)
    requests, people = [requests[row] for row in rows.tolist()], people[rows]
    vectors = unit_length(embedded.vectors[rows]) if len(rows) else np.empty((0, embeddings.vectors.shape[1]))
    pictures = _Pictures(requests, spec_of(images.index.manifest), engine.max_pixels)
    copies = look_alikes.copies_of(vectors, pictures.views(protocol.name), pictures.detail)
    return Overlap(
        name=protocol.name,
        root=protocol.root,
        requests=requests,
        copies=copies,
        people=_people(vectors, people, images, embeddings, labels),
    )


def _undegraded(protocol: Protocol) -> tuple[list[Request], np.ndarray]:
    """One request for each image, and (N,) the person on it."""
    first: dict[str, int] = {}
    for row, request in enumerate(protocol.requests):
        first.setdefault(request.name, row)
    rows = list(first.values())
    return [dataclasses.replace(protocol.requests[row], down=None) for row in rows], people_of(protocol)[rows]


def _people(
    vectors: np.ndarray,
    people: np.ndarray,
    images: StoredImages,
    embeddings: Embeddings,
    labels: Labels,
) -> Matches:
    """Matches whose first positions are rows of ``vectors``: an image of the person."""
    known, index = np.flatnonzero(people >= 0), images.index
    codes, shown, position, sizes = np.unique(people[known], return_index=True, return_inverse=True, return_counts=True)
    sums = np.zeros((len(codes), embeddings.vectors.shape[1]), np.float32)
    np.add.at(sums, position, vectors[known].astype(np.float32))
    if not len(codes):
        return NOTHING
    found = known_people(sums, labels.sums, look_up(embeddings.vectors, index.first, index.count, labels.sums, sizes))
    pairs = found.pairs.copy()
    pairs[:, 0] = known[shown[found.pairs[:, 0]]]
    return dataclasses.replace(found, pairs=pairs)


class _Pictures:
    """Small pictures of the images of a benchmark, framed as the images of the set are."""

    def __init__(self, requests: list[Request], spec: Preprocessing, max_pixels: int) -> None:
        self._spec, self._max_pixels = spec, max_pixels
        whole = [dataclasses.replace(request, points=None, template=None, side=None) for request in requests]
        self._requests = requests if spec.aligned else whole

    def _grey(self, row: int) -> np.ndarray:
        request = self._requests[row]
        data = request.read(self._max_pixels)
        return cv2.cvtColor(prepare(data, [request], self._spec, self._max_pixels)[0], cv2.COLOR_RGB2GRAY)

    def detail(self, row: int) -> np.ndarray:
        """Picture for ``detail_similarity``."""
        return detail(self._grey(row), self._spec.template)

    def views(self, name: str) -> np.ndarray:
        """(N, VIEW_PX, VIEW_PX) uint8 for ``view_similarity``; black where the image gives no crop."""
        found = np.zeros((len(self._requests), VIEW_PX, VIEW_PX), np.uint8)
        with Progress(f"pictures of {name}", len(found)) as progress:
            for row in range(len(found)):
                with contextlib.suppress(ImageError):  # cannot be framed as the images of the set are
                    found[row] = view(self._grey(row), self._spec.template)
                progress.update(1)
        return found
