"""The engine: prepares images on threads, embeds each (image, preparation) once, scores, collects the result."""

from __future__ import annotations

import collections
import concurrent.futures as futures
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks.engine.cache import EmbeddingCache
from benchmarks.errors import ProtocolError
from benchmarks.scoring.protocols import HardPair, Protocol, Scored
from benchmarks.scoring.results import Result, ShownPair
from pipeline.prepare import NoCropError, Request, cache_key, prepare
from pipeline.progress import Progress
from pipeline.sources.images import ImageError, read_regular
from pipeline.spec import Preprocessing

Embed = Callable[[np.ndarray], np.ndarray]
Value = TypeVar("Value")
_AHEAD = 4  # batches of prepared images that wait for the network
_LISTED = 20  # missing images named on stderr


@dataclasses.dataclass(frozen=True, kw_only=True)
class Embedded:
    """Embeddings of N requests.

    Attributes:
        vectors: (N, D) float32, of the length that the network gives them; zero where there is none.
        good: (N,) bool.
        missing: images that are absent or cannot be prepared, with the reason.
        no_crop: those of them that are sound, but for their landmarks.
        computed: forward passes.  cached: embeddings found on disk.
    """

    vectors: np.ndarray
    good: np.ndarray
    missing: dict[Path, str]
    no_crop: set[Path]
    computed: int
    cached: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class _File:
    """One image file, its requests (their rows) prepared: pixels to embed, or vectors from the cache, or the reason why not."""

    path: Path
    rows: list[int]
    keys: list[bytes] = dataclasses.field(default_factory=list)
    cached: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
    pixels: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
    reason: str | None = None
    no_crop: bool = False


class _Table:
    """(N, D) vectors that come in any order; D is known with the first."""

    def __init__(self, count: int) -> None:
        self.vectors = np.zeros((count, 1), np.float32)
        self.good = np.zeros(count, bool)

    def put(self, rows: dict[int, np.ndarray]) -> None:
        for row, vector in rows.items():
            if self.vectors.shape[1] != len(vector):
                self.vectors = np.zeros((len(self.good), len(vector)), np.float32)
            self.vectors[row], self.good[row] = vector, True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Engine:
    """Embeds requests for one network.

    Attributes:
        embed: (N, S, S, 3) uint8 RGB -> (N, D) float32.
        spec: how images are prepared.
        cache: open, or None.
        batch_size: images embedded at a time.
    """

    embed: Embed
    spec: Preprocessing = dataclasses.field(default_factory=Preprocessing)
    cache: EmbeddingCache | None = None
    batch_size: int = 64

    def embeddings(self, requests: list[Request], label: str) -> Embedded:
        """Embeds each request once; ``label`` heads the progress line. Raises: as ``embed_all``."""
        with Progress(label, len(requests), "preparations") as progress:
            return self.embed_all(requests, progress)

    def embed_all(self, requests: list[Request], progress: Progress) -> Embedded:
        """As ``embeddings``, with a progress line that may be of more than these requests.

        Raises:
            ProtocolError: an embedding is not finite.
        """
        table = _Table(len(requests))
        missing: dict[Path, str] = {}
        no_crop: set[Path] = set()
        waiting: list[tuple[int, bytes, np.ndarray]] = []
        computed = 0
        for file in self._files(requests):
            if file.reason is not None:
                missing[file.path] = file.reason
            no_crop |= {file.path} if file.no_crop else set()
            table.put(file.cached)
            waiting += [
                (row, key, file.pixels[row])
                for row, key in zip(file.rows, file.keys, strict=False)
                if row in file.pixels
            ]
            while len(waiting) >= self.batch_size:
                table.put(self._embed(waiting[: self.batch_size]))
                waiting = waiting[self.batch_size :]
                computed += self.batch_size
            progress.update(len(file.rows))
        if waiting:
            table.put(self._embed(waiting))
            computed += len(waiting)
        return Embedded(
            vectors=table.vectors,
            good=table.good,
            missing=missing,
            no_crop=no_crop,
            computed=computed,
            cached=int(table.good.sum()) - computed,
        )

    def _embed(self, batch: list[tuple[int, bytes, np.ndarray]]) -> dict[int, np.ndarray]:
        """Vectors by row."""
        values = self.embed(np.stack([pixels for _, _, pixels in batch]))
        if not np.isfinite(values).all():
            raise ProtocolError(
                "the network's embeddings are not finite; the checkpoint is damaged or its training diverged"
            )
        for (_, key, _), vector in zip(batch, values, strict=True):
            if self.cache is not None:
                self.cache.put(key, vector)
        return {row: vector for (row, _, _), vector in zip(batch, values, strict=True)}

    def _files(self, requests: list[Request]) -> Iterator[_File]:
        """Every file once, prepared by threads that work some batches ahead of the network."""
        rows: dict[Path, list[int]] = {}
        for row, request in enumerate(requests):
            rows.setdefault(request.path, []).append(row)
        files = iter(rows.items())
        pool = futures.ThreadPoolExecutor(len(os.sched_getaffinity(0)))
        running: collections.deque[futures.Future[_File]] = collections.deque()
        ahead = max(_AHEAD * self.batch_size * len(rows) // max(len(requests), 1), 2)
        try:
            for path, its_rows in files:
                running.append(pool.submit(self._prepare, path, its_rows, requests))
                if len(running) > ahead:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _prepare(self, path: Path, rows: list[int], requests: list[Request]) -> _File:
        try:
            data = read_regular(path)
            keys = [cache_key(data, requests[row], self.spec) for row in rows]
            found = {row: self.cache.get(key) for row, key in zip(rows, keys, strict=True)} if self.cache else {}
            cached = {row: vector for row, vector in found.items() if vector is not None}
            wanted = [row for row in rows if row not in cached]
            pixels = prepare(data, [requests[row] for row in wanted], self.spec) if wanted else []
            return _File(path=path, rows=rows, keys=keys, cached=cached, pixels=dict(zip(wanted, pixels, strict=True)))
        except FileNotFoundError:
            return _File(path=path, rows=rows, reason="not found")
        except OSError as error:
            return _File(path=path, rows=rows, reason=f"cannot be read: {error.strerror}")
        except ImageError as error:
            return _File(path=path, rows=rows, reason=str(error), no_crop=isinstance(error, NoCropError))


def run(
    protocol: Protocol,
    engine: Engine,
    *,
    checkpoint: dict[str, Any],
    allow_missing: bool = False,
    intervals: bool = True,
) -> Result:
    """Embeds and scores one benchmark.

    Args:
        checkpoint: facts for the result.
        allow_missing: score without the images that cannot be used; the result is then partial.
        intervals: compute them; figures alone are quicker.

    Raises:
        ProtocolError: images cannot be used and ``allow_missing`` is not set (they are listed on stderr), too
            little is left to score, or faces are to be aligned for a network that never saw one aligned.
    """
    _check_alignment(protocol, engine.spec, checkpoint)
    embedded = engine.embeddings(protocol.requests, f"bench {protocol.name}")
    if embedded.missing:
        _list(embedded.missing)
        if not allow_missing:
            raise ProtocolError(f"bench {protocol.name}: {_remedy(embedded)}")
    scored = protocol.score(embedded.vectors, embedded.good)
    named = {setting: one.samples.figures() for setting, one in scored.items()}
    return Result(
        benchmark=protocol.name,
        title=protocol.title,
        data=protocol.data,
        doubts=protocol.doubts,
        main=protocol.main,
        metrics=_flat(named),
        intervals=_flat({setting: one.samples.intervals() for setting, one in scored.items()}) if intervals else {},
        counts=_counts(protocol, embedded, scored),
        missing=[(str(path), reason) for path, reason in embedded.missing.items()],
        checkpoint=checkpoint,
        preprocessing=engine.spec.to_dict(),
        settings={setting: one.samples for setting, one in scored.items()},
        hardest={
            setting: {
                "genuine": _shown(one.genuine, protocol.requests),
                "impostors": _shown(one.impostors, protocol.requests),
            }
            for setting, one in scored.items()
        },
    )


def _check_alignment(protocol: Protocol, spec: Preprocessing, checkpoint: dict[str, Any]) -> None:
    if not spec.aligned and any(request.points is not None for request in protocol.requests):
        raise ProtocolError(
            f"bench {protocol.name}: aligns faces by their landmarks; {checkpoint.get('path', 'the network')} learned from"
            f" unaligned images alone (template {spec.template}) and states no template: score it on qmul, qmul-id or tinyface"
        )


def _list(missing: dict[Path, str]) -> None:
    for path, reason in list(missing.items())[:_LISTED]:
        print(f"{path}: {reason}", file=sys.stderr)
    if len(missing) > _LISTED:
        print(f"and {len(missing) - _LISTED:,} more", file=sys.stderr)


def _remedy(embedded: Embedded) -> str:
    count, no_crop = len(embedded.missing), len(embedded.no_crop)
    files = ["restore from the data set's archive"] * (no_crop < count)
    tables = ["mend the table of landmarks or name another with --landmarks"] * (no_crop > 0)
    return (
        f"{count:,} image{'s' if count > 1 else ''} cannot be used, listed above; {'; '.join(files + tables)},"
        " or pass --allow-missing to score without them"
    )


def _flat(named: dict[str, dict[str, Value]]) -> dict[str, Value]:
    return {setting.format(name): value for setting, values in named.items() for name, value in values.items()}


def _counts(protocol: Protocol, embedded: Embedded, scored: dict[str, Scored]) -> dict[str, int]:
    return {
        **protocol.counts,
        "images": len({request.path for request in protocol.requests}),
        "prepared": len(protocol.requests),
        "embedded": embedded.computed,
        "cached": embedded.cached,
        "left_out": max(one.left_out for one in scored.values()),
    }


def _shown(pairs: list[HardPair], requests: list[Request]) -> list[ShownPair]:
    return [ShownPair(first=requests[pair.first], second=requests[pair.second], score=pair.score) for pair in pairs]
