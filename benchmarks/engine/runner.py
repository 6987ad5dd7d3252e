"""Runs a benchmark: prepares and embeds each image once, scores the embeddings, collects the result."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

import numpy as np

from benchmarks.engine.cache import EmbeddingCache
from benchmarks.engine.checks import check_fits, list_missing
from benchmarks.engine.measurement import measurement
from benchmarks.engine.prepared import Input, Preparer
from benchmarks.engine.team import Embedded, Job, Part, Team, blocks_of, joined
from benchmarks.errors import ProtocolError
from benchmarks.scoring.intervals import Interval
from benchmarks.scoring.protocols import Protocol, ScoredSetting
from benchmarks.scoring.results import Result, library_versions
from pipeline.images.decode import MAX_PIXELS
from pipeline.prepare import Request, check_supported
from pipeline.progress import Progress
from pipeline.sources.watch import SourceWatch
from pipeline.spec import Preprocessing
from shards.arguments import check_argument, shown
from shards.messages import counted

Embed = Callable[[np.ndarray], np.ndarray]
Value = TypeVar("Value")
PREFETCH_BATCHES = 4  # prepared while the network embeds one
MANY_SAMPLES = 500_000  # their intervals take a minute


@dataclasses.dataclass(frozen=True, kw_only=True)
class Engine:
    """Embeds images with one network.

    Attributes:
        embed: (N, S, S, 3) uint8 RGB -> (N, D) float32. If it has a method ``start``, from images to a function that
            returns their vectors, a batch is started before the vectors of the one before are fetched.
        spec: the network's preprocessing spec.
        cache: an open cache, or None.
        batch_size: images per call of ``embed``.
        max_pixels: an image that states more is unusable.
        watch: the folders of the images, whose loss ends the work.
        team: the processes that embed together; None: this one alone.

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
    team: Team | None = None

    def __post_init__(self) -> None:
        for name, good, expected in (
            ("embed", callable(self.embed), "a function from (N, S, S, 3) uint8 images to (N, D) vectors"),
            ("spec", isinstance(self.spec, Preprocessing), "a Preprocessing"),
            ("cache", isinstance(self.cache, EmbeddingCache | None), "an open EmbeddingCache or None"),
            ("batch_size", type(self.batch_size) is int and self.batch_size > 0, "an int above 0"),
            ("max_pixels", type(self.max_pixels) is int and self.max_pixels > 0, "an int above 0"),
            ("watch", isinstance(self.watch, SourceWatch), "a SourceWatch"),
            ("team", isinstance(self.team, Team | None), "a Team or None"),
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
        if self.team is None:
            return self._embed_blocks(requests, progress.update)
        size, left = self.team.size, len(requests)

        def update(count: int) -> None:
            """Moves the bar, as if the others were as far as this process."""
            nonlocal left
            progress.update(step := min(count * size, left))
            left -= step

        job = Job(requests=requests, folders=self.watch.folders)
        parts = self.team.share(job, lambda: self._embed_blocks(requests, update, 0, size).part())
        progress.update(left)
        return joined(parts, requests)

    def embed_share(self, job: Job, rank: int, size: int) -> Part:
        """Embeds the blocks of process ``rank`` among ``size``. Raises as ``embed_all``."""
        engine = dataclasses.replace(self, watch=SourceWatch(job.folders))
        return engine._embed_blocks(job.requests, lambda _: None, rank, size).part()

    def _embed_blocks(
        self, requests: list[Request], update: Callable[[int], object], rank: int = 0, size: int = 1
    ) -> Embedded:
        """Embeds every block of number ``rank`` modulo ``size``, and calls ``update`` with the number of requests done."""
        rows, blocks = blocks_of(requests, self.batch_size)
        mine = (blocks % size == rank).tolist()
        own = {name: kept for name, of_file in rows.items() if (kept := [row for row in of_file if mine[row]])}
        embedded = Embedded(len(requests))
        queue: list[Input] = []
        fetch: Callable[[], None] | None = None  # of the batch that is being embedded
        preparer = Preparer(spec=self.spec, cache=self.cache, max_pixels=self.max_pixels, watch=self.watch)
        for file in preparer.files(requests, own, PREFETCH_BATCHES * self.batch_size):
            if file.error is not None:
                embedded.missing[file.name] = file.error
            for row, vector in file.cached.items():
                embedded.put(row, vector)
            for one in file.inputs:
                if queue and (len(queue) == self.batch_size or blocks[one[0]] != blocks[queue[-1][0]]):
                    fetch, queue = self._start_batch(queue, embedded, fetch), []
                queue.append(one)
            update(file.requests)
        if queue:
            fetch = self._start_batch(queue, embedded, fetch)
        if fetch:
            fetch()
        return embedded

    def _start_batch(
        self, batch: list[Input], embedded: Embedded, fetch: Callable[[], None] | None
    ) -> Callable[[], None]:
        """Starts ``batch`` and then calls ``fetch``, which keeps the vectors of the batch before; returns that of this one."""
        images = np.stack([image for _, _, image in batch])
        started = start(images) if (start := getattr(self.embed, "start", None)) else None
        vectors = None if started else self.embed(images)
        if fetch:
            fetch()
        return lambda: self._keep(batch, started() if started else vectors, embedded)

    def _keep(self, batch: list[Input], returned: Any, embedded: Embedded) -> None:
        """Records what ``embed`` returned for ``batch``."""
        vectors = _checked_vectors(returned, len(batch))
        if not np.isfinite(vectors).all():
            raise ProtocolError(
                "the network's embeddings are not finite; the checkpoint is damaged or its training diverged"
            )
        for (row, key, _), vector in zip(batch, vectors, strict=True):
            embedded.put(row, vector)
            if self.cache is not None:
                self.cache.put(key, vector)
        embedded.computed += len(batch)


def _checked_vectors(returned: Any, count: int) -> np.ndarray:
    """The (count, D) vectors that ``embed`` returned. Raises: TypeError: they are not vectors."""
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
    check_fits(protocol, engine.spec, checkpoint.get("path", "the network"))
    with Progress(f"bench {protocol.name}", len(protocol.requests), "preparations") as progress:
        embedded = dataclasses.replace(engine, watch=SourceWatch([protocol.root, *protocol.folders])).embed_all(
            protocol.requests, progress
        )
    if embedded.missing:
        message = list_missing(embedded.missing, "" if protocol.source else " from the data set's archive")
        if not allow_missing:
            raise ProtocolError(f"bench {protocol.name}: {message}")
    scored = protocol.score(embedded.vectors, embedded.valid)
    bounds = _intervals(protocol, scored) if intervals else {}
    thresholds = {setting: scored[setting].samples.threshold_intervals() for setting in bounds}  # of the same resamples
    return Result(
        benchmark=protocol.name,
        title=protocol.title,
        data=protocol.source or str(protocol.root),
        notes=list(protocol.notes),
        caveats=protocol.caveats,
        main=protocol.main,
        metrics=_by_full_name({setting: one.samples.metrics() for setting, one in scored.items()}),
        intervals=_by_full_name(bounds),
        threshold_intervals=_by_full_name(thresholds),
        counts=_counts(protocol, embedded, scored),
        missing=[(name, str(error)) for name, error in embedded.missing.items()],
        checkpoint=checkpoint,
        preprocessing=engine.spec,
        settings={setting: one.samples for setting, one in scored.items()},
        measurement=measurement(),
        versions=library_versions(),
        hardest={setting: one.hardest for setting, one in scored.items()},
        examples=protocol.examples(embedded.valid),
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
