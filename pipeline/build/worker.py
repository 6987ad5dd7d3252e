"""Build worker: aligns, encodes and writes one shard."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np

from pipeline.align import eye_distances, fit_similarity, resized, template_points, warp
from pipeline.build.options import BuildOptions
from pipeline.opencv import quiet, single_thread
from pipeline.sources.images import ImageError, bytes_limit, decode_bytes
from pipeline.sources.source import Reader
from pipeline.sources.watch import SourceWatch
from pipeline.spec import Preprocessing
from shards.schema import STATUS_OK
from shards.writer import Row, ShardWriter

RETRIED = ("missing-file", "unreadable-image")  # statuses that --retry-failed builds again


class RejectedError(Exception):
    """An image that is not stored. The message becomes the row's ``error_message``."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


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

    def __str__(self) -> str:
        return f"shard {self.shard}"


def run_shard(task: ShardTask) -> dict[str, Any]:
    """Writes and commits one shard, and returns its done record.

    Every row of the task becomes a row of the shard; an image that cannot be stored is a row with a reason.

    Raises:
        SourceError: the folder of the images is gone.
        OSError: the file system or this process is in trouble; no image can be blamed.
    """
    options, spec = task.options, task.options.preprocessing
    places: Sequence[str | bytes] = task.keys if task.places is None else task.places
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(task.reader))
        stack.enter_context(single_thread())
        stack.enter_context(quiet())
        writer = stack.enter_context(ShardWriter(options.out, task.shard, task.fingerprint))
        for place, (row, matrix) in zip(places, _rows(task), strict=True):
            jpeg = None
            if row.status == STATUS_OK:
                try:
                    image = _read_image(task, row.key, place, grey=matrix is not None)
                    jpeg = _crop_jpeg(row, matrix, image, spec)
                except RejectedError as error:
                    row.status, row.error_message = error.status, str(error)
            writer.add(row, jpeg)
        return writer.commit()


def _rows(task: ShardTask) -> Iterator[tuple[Row, np.ndarray | None]]:
    """Yields each row of the task, rejected or not, and its alignment matrix (None if images are not aligned)."""
    rejected = dict(task.rejected)
    landmarks: list[list[float]] = []
    distances: list[float] = []
    matrices = None
    if task.points is not None:
        spec, points = task.options.preprocessing, task.points.reshape(-1, 5, 2)
        matrices, fitted = fit_similarity(points, template_points(spec.template, spec.size))
        for position in np.flatnonzero(~fitted).tolist():
            rejected.setdefault(position, ("degenerate-landmarks", "the five points coincide or lie on one line"))
        landmarks, distances = task.points.tolist(), eye_distances(points).tolist()
    for position, key in enumerate(task.keys):
        row = Row(key=key, identity=task.identities[position], label=task.labels[position])
        row.status, row.error_message = rejected.get(position, (STATUS_OK, None))
        if matrices is not None:
            row.landmarks, row.eye_distance = landmarks[position], distances[position]
        yield row, None if matrices is None else matrices[position]


def _read_image(task: ShardTask, key: str, place: str | bytes, grey: bool) -> np.ndarray:
    max_pixels = task.options.max_pixels
    try:
        return decode_bytes(task.reader.read(place, bytes_limit(max_pixels)), grey=grey, max_pixels=max_pixels)
    except FileNotFoundError as error:
        task.watch.check(error)
        raise RejectedError("missing-file", str(error)) from None
    except OSError as error:
        task.watch.check(error)
        raise RejectedError("unreadable-image", f"cannot be read: {error.strerror}") from None
    except ImageError as error:
        raise RejectedError("unreadable-image", str(error)) from None
    except MemoryError as error:
        raise MemoryError(f"{key}: {error}") from None


def _crop_jpeg(row: Row, matrix: np.ndarray | None, image: np.ndarray, spec: Preprocessing) -> bytes:
    """Returns the encoded crop of an image; sets the image's size and the matrix in ``row``.

    Raises:
        RejectedError: the landmarks lie outside the image, or an image that should be an aligned crop is not square.
    """
    row.height, row.width = image.shape[:2]
    if matrix is None:
        if spec.aligned and row.height != row.width:
            raise RejectedError("not-square", f"{row.width}x{row.height} px; an aligned crop is square")
        crop = resized(image, spec.size)
    else:
        if not _any_inside(row.landmarks or (), row.width, row.height):
            reason = f"all five points lie outside the {row.width}x{row.height} image"
            raise RejectedError("degenerate-landmarks", reason)
        crop = warp(image, matrix, spec.size)
        row.matrix = matrix.ravel().tolist()
    if crop.ndim == 2:
        crop = cv2.cvtColor(crop, cv2.COLOR_GRAY2BGR)
    return cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, spec.jpeg_quality])[1].tobytes()


def _any_inside(landmarks: Sequence[float], width: int, height: int) -> bool:
    """Returns True if at least one of the points (x, y, x, y, ...) lies inside the image."""
    return any(0 <= x < width and 0 <= y < height for x, y in zip(landmarks[::2], landmarks[1::2], strict=True))
