"""What a worker does: the images of one shard, aligned or resized, stored and committed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from pipeline.align import eye_distances, fit_similarity, template_points, warp
from pipeline.build.options import BuildOptions
from pipeline.sources.catalog import SOURCES, find_image
from pipeline.sources.images import ImageError, decode_bytes, read_regular, resized
from shards.errors import ShardError
from shards.schema import STATUS_OK
from shards.writer import Row, ShardWriter, member_stem

RETRIED = ("missing-file", "unreadable-image")  # statuses that another attempt may mend


class RejectedError(Exception):
    """An image that is not stored; the message is the row's reason."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardTask:
    """All that a worker needs for one shard.

    Attributes:
        points: (N, 10) float32; None where images are not aligned.
        rejected: position in the shard -> (status, reason).
    """

    shard: int
    options: BuildOptions
    fingerprint: str
    keys: list[str]
    identities: list[str]
    labels: list[int]
    points: np.ndarray | None
    rejected: dict[int, tuple[str, str]]


def run_shard(task: ShardTask) -> dict[str, Any]:
    """Aligns and stores the images of one shard and commits it; returns its done record.

    Every row of the task becomes a row of the shard: a bad image is a row with a reason.
    """
    cv2.setNumThreads(1)  # the pool is the parallelism
    # what OpenCV would print about a damaged file is in that file's row
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    with ShardWriter(task.options.out, task.shard, task.fingerprint) as writer:
        for row, matrix in _rows(task):
            jpeg = None
            if row.status == STATUS_OK:
                try:
                    jpeg = _jpeg(row, matrix, task.options)
                except RejectedError as why:
                    row.status, row.error_message = why.status, str(why)
            writer.add(row, jpeg)
        return writer.commit()


def _rows(task: ShardTask) -> Iterator[tuple[Row, np.ndarray | None]]:
    """The rows of a task, rejected or still to be stored; each with its matrix, None where images are not aligned."""
    rejected = dict(task.rejected)
    landmarks: list[list[float]] = []
    distances: list[float] = []
    matrices = None
    if task.points is not None:
        spec, points = task.options.preprocessing, task.points.reshape(-1, 5, 2)
        matrices, fitted = fit_similarity(points, template_points(spec.template, spec.size))
        for place in np.flatnonzero(~fitted).tolist():
            rejected.setdefault(place, ("degenerate-landmarks", "the five points coincide or lie on one line"))
        landmarks, distances = task.points.tolist(), eye_distances(points).tolist()
    for place, key in enumerate(task.keys):
        row = Row(key=key, identity=task.identities[place], label=task.labels[place])
        row.status, row.error_message = rejected.get(place, (STATUS_OK, None))
        if matrices is not None:
            row.landmarks, row.eye_distance = landmarks[place], distances[place]
        yield row, None if matrices is None else matrices[place]


def _jpeg(row: Row, matrix: np.ndarray | None, options: BuildOptions) -> bytes:
    """The encoded crop of a row; adds to the row what its image tells.

    Raises:
        RejectedError: there is none, and why.
    """
    spec = options.preprocessing
    image = _image(row.key, options, grey=matrix is not None)
    row.height, row.width = image.shape[:2]
    if matrix is None:
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


def _image(key: str, options: BuildOptions, grey: bool) -> np.ndarray:
    try:
        member_stem(key)
    except ShardError as error:
        raise RejectedError("bad-key", str(error)) from None
    try:
        return decode_bytes(_content(key, options), grey=grey)
    except ImageError as error:
        raise RejectedError("unreadable-image", str(error)) from None


def _content(key: str, options: BuildOptions) -> bytes:
    """The bytes of an image: of ``key.jpg``, nearly always; looked for only where that cannot be read."""
    splits = SOURCES[options.source].splits
    for split in splits:
        try:
            return read_regular(f"{options.root}/{split}/{key}.jpg")
        except OSError:
            continue
    path = find_image(options.root, splits, key)
    if path is None:
        named = [split for split in splits if split]
        folders = f"{options.root} ({', '.join(named)})" if named else str(options.root)
        raise RejectedError("missing-file", f"no image {key} under {folders}")
    try:
        return read_regular(path)
    except OSError as error:
        raise RejectedError("unreadable-image", f"cannot be read: {error.strerror}") from None


def _any_inside(landmarks: Any, width: int, height: int) -> bool:
    """True where at least one of the points (x, y, x, y, ...) lies in the image."""
    return any(0 <= x < width and 0 <= y < height for x, y in zip(landmarks[::2], landmarks[1::2], strict=True))
