"""Prepares image files by threads, a few batches ahead of the network."""

from __future__ import annotations

import collections
import concurrent.futures as futures
import dataclasses
import os
from collections.abc import Iterator

import numpy as np

from benchmarks.engine.cache import EmbeddingCache
from pipeline.images.decode import ImageError
from pipeline.prepare import Request, cache_key, prepare
from pipeline.sources.watch import SourceWatch
from pipeline.spec import Preprocessing

Input = tuple[int, bytes, np.ndarray]  # row of the request, cache key, (S, S, 3) uint8 RGB


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreparedFile:
    """The requests of one image file: embeddings from the cache by row, inputs to embed, or an error."""

    name: str
    requests: int
    cached: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
    inputs: list[Input] = dataclasses.field(default_factory=list)
    error: ImageError | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preparer:
    """Prepares images for one network, or finds their embeddings in the cache.

    Attributes:
        spec: the network's preprocessing spec.
        cache: an open cache, or None.
        max_pixels: an image that states more is unusable.
        watch: the folders of the images, whose loss ends the work.
    """

    spec: Preprocessing
    cache: EmbeddingCache | None
    max_pixels: int
    watch: SourceWatch

    def files(self, requests: list[Request], rows: dict[str, list[int]], ahead: int) -> Iterator[PreparedFile]:
        """Yields every image file once.

        Args:
            rows: the requests of each file.
            ahead: requests that are prepared before the first one is taken.

        Raises:
            SourceError: a folder of the images is gone.
            OSError: the file system or this process is in trouble; no image can be blamed.
        """
        pool = futures.ThreadPoolExecutor(len(os.sched_getaffinity(0)))
        running: collections.deque[futures.Future[PreparedFile]] = collections.deque()
        files_ahead = max(ahead * len(rows) // max(sum(map(len, rows.values())), 1), 2)
        try:
            for name, of_file in rows.items():
                running.append(pool.submit(self._file, name, of_file, requests))
                if len(running) > files_ahead:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _file(self, name: str, rows: list[int], requests: list[Request]) -> PreparedFile:
        try:
            data = requests[rows[0]].read(self.max_pixels)
            keys = {row: cache_key(data, requests[row], self.spec) for row in rows}
            hits = {row: self.cache.get(key) for row, key in keys.items()} if self.cache else {}
            cached = {row: vector for row, vector in hits.items() if vector is not None}
            misses = [row for row in rows if row not in cached]
            images = prepare(data, [requests[row] for row in misses], self.spec, self.max_pixels) if misses else []
            inputs = [(row, keys[row], image) for row, image in zip(misses, images, strict=True)]
            return PreparedFile(name=name, requests=len(rows), cached=cached, inputs=inputs)
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
        return PreparedFile(name=name, requests=len(rows), error=failure)
