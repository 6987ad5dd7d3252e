"""Runs a benchmark: prepares and embeds each image once, scores the embeddings, collects the result."""

from __future__ import annotations

import collections
import concurrent.futures as futures
import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, TypeVar

import numpy as np

from benchmarks.engine.cache import EmbeddingCache
from benchmarks.errors import ProtocolError
from benchmarks.scoring.intervals import Interval
from benchmarks.scoring.protocols import Protocol, ScoredSetting
from benchmarks.scoring.results import Result
from pipeline.prepare import NoCropError, Request, cache_key, check_supported, prepare
from pipeline.progress import Progress
from pipeline.sources.images import MAX_PIXELS, ImageError
from pipeline.sources.landmark_scale import scale_warning, spread
from pipeline.sources.sizes import image_size
from pipeline.sources.watch import SourceWatch
from pipeline.spec import Preprocessing
from shards.arguments import check_argument, shown
from shards.messages import counted, print_stderr

Embed = Callable[[np.ndarray], np.ndarray]
Value = TypeVar("Value")
_Input = tuple[int, bytes, np.ndarray]  # row of the request, cache key, (S, S, 3) uint8 RGB
PREFETCH_BATCHES = 4  # prepared while the network embeds one
MAX_LISTED = 20  # missing images on stderr
MANY_SAMPLES = 500_000  # their intervals take a minute


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

    def put(self, row: int, vector: np.ndarray) -> None:
        """Sets the embedding of a request; the first one sets D. Raises: TypeError: another D."""
        if self.vectors.shape[1] != len(vector):
            if self.valid.any():
                known = self.vectors.shape[1]
                raise TypeError(f"embeddings of {known} and of {len(vector)} numbers: a network has one length")
            self.vectors = np.zeros((len(self.valid), len(vector)), np.float32)
        self.vectors[row], self.valid[row] = vector, True


@dataclasses.dataclass(frozen=True, kw_only=True)
class _PreparedFile:
    """The requests of one image file: embeddings from the cache by row, inputs to embed, or an error."""

    name: str
    requests: int
    cached: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
    inputs: list[_Input] = dataclasses.field(default_factory=list)
    error: ImageError | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Engine:
    """Embeds images with one network.

    Attributes:
        embed: (N, S, S, 3) uint8 RGB -> (N, D) float32.
        spec: the network's preprocessing spec.
        cache: an open cache, or None.
        batch_size: images per call of ``embed``.
        max_pixels: an image that states more is unusable.
        watch: the folders of the images, whose loss ends the work.

    Raises:
        TypeError: a field has the wrong type.
        SpecError: the spec is not supported.
    """

    embed: Embed
    spec: Preprocessing = dataclasses.field(default_factory=Preprocessing)
    cache: EmbeddingCache | None = None
    batch_size: int = 64
    max_pixels: int = MAX_PIXELS
    watch: SourceWatch = dataclasses.field(default_factory=lambda: SourceWatch([]))

    def __post_init__(self) -> None:
        for name, good, expected in (
            ("embed", callable(self.embed), "a function from (N, S, S, 3) uint8 images to (N, D) vectors"),
            ("spec", isinstance(self.spec, Preprocessing), "a Preprocessing"),
            ("cache", isinstance(self.cache, EmbeddingCache | None), "an open EmbeddingCache or None"),
            ("batch_size", type(self.batch_size) is int and self.batch_size > 0, "an int above 0"),
            ("max_pixels", type(self.max_pixels) is int and self.max_pixels > 0, "an int above 0"),
            ("watch", isinstance(self.watch, SourceWatch), "a SourceWatch"),
        ):
            check_argument(good, f"Engine: {name}", getattr(self, name), expected)
        check_supported(self.spec, "Engine")

    def embed_all(self, requests: list[Request], progress: Progress) -> Embedded:
        """Embeds each request once.

        Raises:
            ProtocolError: an embedding is not finite.
            SourceError: a folder of the images is gone.
            OSError: the file system or this process is in trouble; no image can be blamed.
            TypeError: ``embed`` does not return a vector for each image, all of one length.
        """
        embedded = Embedded(len(requests))
        queue: list[_Input] = []
        for file in self._prepared_files(requests):
            if file.error is not None:
                embedded.missing[file.name] = file.error
            for row, vector in file.cached.items():
                embedded.put(row, vector)
            queue += file.inputs
            while len(queue) >= self.batch_size:
                self._embed_batch(queue[: self.batch_size], embedded)
                queue = queue[self.batch_size :]
            progress.update(file.requests)
        if queue:
            self._embed_batch(queue, embedded)
        return embedded

    def _embed_batch(self, batch: list[_Input], embedded: Embedded) -> None:
        vectors = _checked_vectors(self.embed(np.stack([image for _, _, image in batch])), len(batch))
        if not np.isfinite(vectors).all():
            raise ProtocolError(
                "the network's embeddings are not finite; the checkpoint is damaged or its training diverged"
            )
        for (row, key, _), vector in zip(batch, vectors, strict=True):
            embedded.put(row, vector)
            if self.cache is not None:
                self.cache.put(key, vector)
        embedded.computed += len(batch)

    def _prepared_files(self, requests: list[Request]) -> Iterator[_PreparedFile]:
        """Yields every image file once, prepared by threads a few batches ahead of the network."""
        rows: dict[str, list[int]] = {}
        for row, request in enumerate(requests):
            rows.setdefault(request.name, []).append(row)
        pool = futures.ThreadPoolExecutor(len(os.sched_getaffinity(0)))
        running: collections.deque[futures.Future[_PreparedFile]] = collections.deque()
        prefetch_files = max(PREFETCH_BATCHES * self.batch_size * len(rows) // max(len(requests), 1), 2)
        try:
            for name, file_rows in rows.items():
                running.append(pool.submit(self._prepare_file, name, file_rows, requests))
                if len(running) > prefetch_files:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _prepare_file(self, name: str, rows: list[int], requests: list[Request]) -> _PreparedFile:
        try:
            data = requests[rows[0]].read(self.max_pixels)
            keys = {row: cache_key(data, requests[row], self.spec) for row in rows}
            hits = {row: self.cache.get(key) for row, key in keys.items()} if self.cache else {}
            cached = {row: vector for row, vector in hits.items() if vector is not None}
            misses = [row for row in rows if row not in cached]
            images = prepare(data, [requests[row] for row in misses], self.spec, self.max_pixels) if misses else []
            inputs = [(row, keys[row], image) for row, image in zip(misses, images, strict=True)]
            return _PreparedFile(name=name, requests=len(rows), cached=cached, inputs=inputs)
        except FileNotFoundError as error:
            self.watch.check(error)
            failure = ImageError("not found")
        except OSError as error:
            self.watch.check(error)
            failure = ImageError(f"cannot be read: {error.strerror}")
        except ImageError as error:
            failure = error
        except MemoryError as error:
            raise MemoryError(f"{name}: {error}") from None
        return _PreparedFile(name=name, requests=len(rows), error=failure)


def _checked_vectors(returned: Any, count: int) -> np.ndarray:
    """The (count, D) vectors that ``embed`` returned. Raises: TypeError: they are none."""
    hint = ""
    try:
        vectors = np.asarray(returned)
    except (TypeError, ValueError, RuntimeError):  # a tensor on a GPU, with a gradient, of bf16; a ragged list
        vectors, hint = np.array(None), ": for a tensor, tensor.detach().float().cpu().numpy()"
    if vectors.ndim != 2 or len(vectors) != count or not vectors.shape[1] or vectors.dtype.kind not in "fiu":
        images = counted(count, "image")
        raise TypeError(f"embed returned {shown(returned)} for {images}, expected ({count}, D) numbers{hint}")
    return vectors


def run(
    protocol: Protocol,
    engine: Engine,
    *,
    checkpoint: dict[str, Any],
    allow_missing: bool = False,
    intervals: bool = True,
) -> Result:
    """Runs one benchmark.

    Args:
        checkpoint: facts about the network that the result records.
        allow_missing: score without the unusable images; the result is then partial.
        intervals: compute 95 % intervals, which takes most of the scoring time.

    Raises:
        ProtocolError: images are unusable and ``allow_missing`` is False (the images are listed on stderr), too few
            images are usable, or the benchmark aligns faces but the network was trained on unaligned images only.
        TypeError: an argument has a wrong type.
    """
    expected = "what read_benchmark(name, root) returns"
    check_argument(isinstance(protocol, Protocol), "run: protocol", protocol, expected)
    check_argument(isinstance(engine, Engine), "run: engine", engine, "an Engine, such as Engine(embed=Embedder(...))")
    expected = "a dict of facts about the network, such as load_network(path).provenance(), or {}"
    check_argument(isinstance(checkpoint, dict), "run: checkpoint", checkpoint, expected)
    if not engine.spec.aligned and any(request.aligned for request in protocol.requests):
        raise ProtocolError(
            f"bench {protocol.name}: aligns faces by landmarks, but {checkpoint.get('path', 'the network')} was trained"
            f" on unaligned images only (template {engine.spec.template}); "
            + (
                "resize the images whole: --aligned none"
                if protocol.source
                else "score it on qmul, qmul-id or tinyface"
            )
        )
    if engine.spec.aligned and not protocol.alignment_stated:
        raise ProtocolError(
            f"bench {protocol.name}: {checkpoint.get('path', 'the network')} was trained on aligned faces (template"
            f" {engine.spec.template}): say how the images are aligned: --landmarks TABLE or auto for photographs, --aligned"
            " arcface, seed or FILE.toml for aligned crops, --aligned none to resize them whole all the same"
        )
    largest = max(request.down or 0 for request in protocol.requests)
    if largest > engine.spec.size:
        raise ProtocolError(
            f"bench {protocol.name}: degrades images to {largest} px, more than the network's input of {engine.spec.size}"
            " px; choose smaller sizes"
        )
    aligned = [request for request in protocol.requests if request.points]
    tried = [aligned[number] for number in spread(len(aligned))]
    faces = [(str(one.path), one.points or (), one.points_size or image_size(one.path)) for one in tried]
    if warning := scale_warning(faces):
        print_stderr(f"bench {protocol.name}: {warning}")
    with Progress(f"bench {protocol.name}", len(protocol.requests), "preparations") as progress:
        embedded = dataclasses.replace(engine, watch=SourceWatch([protocol.root, *protocol.folders])).embed_all(
            protocol.requests, progress
        )
    if embedded.missing:
        message = _list_missing(embedded.missing, "" if protocol.source else " from the data set's archive")
        if not allow_missing:
            raise ProtocolError(f"bench {protocol.name}: {message}")
    scored = protocol.score(embedded.vectors, embedded.valid)
    bounds = _intervals(protocol, scored) if intervals else {}
    return Result(
        benchmark=protocol.name,
        title=protocol.title,
        data=protocol.source or str(protocol.root),
        notes=list(protocol.notes),
        caveats=protocol.caveats,
        main=protocol.main,
        metrics=_by_full_name({setting: one.samples.metrics() for setting, one in scored.items()}),
        intervals=_by_full_name(bounds),
        counts=_counts(protocol, embedded, scored),
        missing=[(name, str(error)) for name, error in embedded.missing.items()],
        checkpoint=checkpoint,
        preprocessing=engine.spec,
        settings={setting: one.samples for setting, one in scored.items()},
        hardest={setting: one.hardest for setting, one in scored.items()},
        max_pixels=engine.max_pixels,
    )


def _intervals(protocol: Protocol, scored: dict[str, ScoredSetting]) -> dict[str, dict[str, Interval]]:
    """Intervals of each setting; with progress, where there are so many samples that they take minutes."""
    samples = {setting: one.samples for setting, one in scored.items()}
    many = sum(len(one.identities) for one in samples.values()) > MANY_SAMPLES
    with Progress(f"bench {protocol.name}: intervals", len(samples), "settings") if many else nullcontext() as progress:
        bounds = {}
        for setting, one in samples.items():
            bounds[setting] = one.intervals()
            if progress:
                progress.update(1)
    return bounds


def _list_missing(missing: dict[str, ImageError], origin: str) -> str:
    """Lists unusable images on stderr; returns a message with remedies. ``origin``: where they may be restored from."""
    for name, error in list(missing.items())[:MAX_LISTED]:
        print_stderr(f"{name}: {error}")
    if len(missing) > MAX_LISTED:
        print_stderr(f"and {len(missing) - MAX_LISTED:,} more")
    count, no_crop = len(missing), sum(isinstance(error, NoCropError) for error in missing.values())
    remedies = []
    if no_crop < count:
        remedies.append(f"restore the images{origin}")
    if no_crop:
        remedies.append("correct the landmark table or name another one with --landmarks")
    return (
        f"{counted(count, 'unusable image')}, listed above; {'; '.join(remedies)};"
        " or pass --allow-missing to score without them"
    )


def _by_full_name(by_setting: dict[str, dict[str, Value]]) -> dict[str, Value]:
    """``{"lr-lr/{}@8": {"auc": x}}`` -> ``{"lr-lr/auc@8": x}``."""
    return {setting.format(name): value for setting, values in by_setting.items() for name, value in values.items()}


def _counts(protocol: Protocol, embedded: Embedded, scored: dict[str, ScoredSetting]) -> dict[str, int]:
    return {
        **protocol.counts,
        "images": len({request.name for request in protocol.requests}),
        "prepared": len(protocol.requests),
        "embedded": embedded.computed,
        "cached": embedded.cached,
        "left_out": max(one.left_out for one in scored.values()),
    }
