"""Build worker: aligns, encodes and writes one shard."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.align import crop_points, eye_distances, fit_crops
from pipeline.build.crops import RejectedError, framed_crop, landmark_crop, whole_crop
from pipeline.build.fingerprint import library_versions
from pipeline.build.options import BuildOptions
from pipeline.build.stored_build import publish_shard
from pipeline.images.decode import ImageError, bytes_limit
from pipeline.opencv import quiet, single_thread
from pipeline.sources.source import Reader
from pipeline.sources.watch import SourceWatch
from shards.errors import ShardError
from shards.files import digest
from shards.schema import PLAN, STATUS_OK, read_plan
from shards.writer import Row, ShardWriter

RETRIED = ("missing-file", "unreadable-image")  # statuses that --retry-failed builds again


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardTask:
    """Everything a worker needs to build one shard."""

    shard: int
    options: BuildOptions
    fingerprint: str
    keys: list[str]
    places: list[bytes] | None  # where the reader finds each image; None: by its key
    reader: Reader
    identities: list[str]
    labels: list[int]
    points: np.ndarray | None  # (N, 10) float32; None if images are not aligned by landmarks
    rejected: dict[int, tuple[str, str]]  # position in the shard -> (status, reason)
    watch: SourceWatch
    versions: dict[str, str]  # of the libraries that determine the pixels

    def __str__(self) -> str:
        return f"shard {self.shard}"


def run_shard(task: ShardTask) -> dict[str, Any]:
    """Writes and commits one shard, and returns its done record.

    Every row of the task becomes a row of the shard; an image that cannot be stored is a row with a reason.

    Raises:
        SourceError: the folder of the images is gone.
        ShardError: this machine has other versions of libraries, or another folder of that name.
        OSError: the file system or this process is in trouble; no image can be blamed.
        StoreError: the store of the set cannot be used.
    """
    options = task.options
    _check_machine(task)
    places: Sequence[str | bytes] = task.keys if task.places is None else task.places
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(task.reader))
        stack.enter_context(single_thread)
        stack.enter_context(quiet)
        task.reader.expect([place for row, place in enumerate(places) if row not in task.rejected])
        writer = stack.enter_context(ShardWriter(options.out, task.shard, task.fingerprint))
        for place, (row, matrix) in zip(places, _rows(task), strict=True):
            jpeg = None
            if row.status == STATUS_OK:
                try:
                    jpeg = _crop(task, row, place, matrix)
                except RejectedError as error:
                    row.status, row.error_message = error.status, str(error)
            writer.add(row, jpeg)
        record = writer.commit()
    if options.store:
        publish_shard(options.store, options.out, task.shard)
    return record


def _check_machine(task: ShardTask) -> None:
    """Raises: ShardError: the files that this machine would write are not those that the build expects."""
    found, out = library_versions(task.points is not None), task.options.out
    if found != task.versions:
        words = [f"{name} {found.get(name)}, expected {version}" for name, version in task.versions.items()]
        raise ShardError(f"{socket.gethostname()} has {', '.join(words)}; install the same versions on all machines")
    if not (out / PLAN).exists() or digest(read_plan(out)["parts"]) != task.fingerprint:
        raise ShardError(
            f"{out} on {socket.gethostname()} is not the folder of this build; all machines must share its file system"
        )


def _rows(task: ShardTask) -> Iterator[tuple[Row, np.ndarray | None]]:
    """Yields each row of the task, rejected or not, and its alignment matrix (None if images are not aligned)."""
    rejected = dict(task.rejected)
    landmarks: list[list[float]] = []
    distances: list[float] = []
    matrices = None
    if task.points is not None:
        spec, points = task.options.preprocessing, task.points.reshape(-1, 5, 2)
        matrices, fitted = fit_crops(points, crop_points(spec, spec.size), spec)
        for position in np.flatnonzero(~fitted).tolist():
            rejected.setdefault(position, ("degenerate-landmarks", "the five points coincide or lie on one line"))
        landmarks, distances = task.points.tolist(), eye_distances(points).tolist()
    for position, key in enumerate(task.keys):
        row = Row(key=key, identity=task.identities[position], label=task.labels[position])
        row.status, row.error_message = rejected.get(position, (STATUS_OK, None))
        if matrices is not None:
            row.landmarks, row.eye_distance = landmarks[position], distances[position]
        yield row, None if matrices is None else matrices[position]


def _crop(task: ShardTask, row: Row, place: str | bytes, matrix: np.ndarray | None) -> bytes:
    """Reads one image and returns the JPEG to store.

    Raises:
        RejectedError: it cannot be stored.
        SourceError, OSError, MemoryError: it is not the image's fault.
    """
    options, spec = task.options, task.options.preprocessing
    limit = options.max_pixels
    try:
        data = task.reader.read(place, bytes_limit(limit))
        if matrix is not None:
            return landmark_crop(row, data, matrix, spec, limit)
        if options.aligned is not None:
            return framed_crop(row, data, options.aligned, spec, limit)
        return whole_crop(row, data, spec, limit)
    except FileNotFoundError as error:
        task.watch.check(error)
        raise RejectedError("missing-file", str(error)) from None
    except OSError as error:
        task.watch.check(error)
        raise RejectedError("unreadable-image", f"cannot be read: {error.strerror}") from None
    except ImageError as error:
        raise RejectedError("unreadable-image", str(error)) from None
    except MemoryError as error:
        raise MemoryError(f"{row.key}: {error}") from None
