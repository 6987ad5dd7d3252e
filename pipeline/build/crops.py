"""From the bytes of an image to the JPEG that is stored: aligned by its landmarks, framed by its template, or resized."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from pipeline.align import crop_points, eye_distances, fit_crops, is_far_too_large, resized, warp
from pipeline.images.decode import decode_bytes
from pipeline.images.verbatim import is_storable
from pipeline.sources.templates import CropTemplate
from pipeline.spec import Preprocessing
from shards.writer import Row


class RejectedError(Exception):
    """An image that is not stored. The message becomes the row's ``error_message``."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def landmark_crop(row: Row, data: bytes, matrix: np.ndarray, spec: Preprocessing, max_pixels: int) -> bytes:
    """Returns the encoded crop of an image that ``matrix`` aligns; sets the image's size and the matrix in ``row``.

    Raises:
        RejectedError: all landmarks lie outside the image, or some far outside.
        ImageError: see ``decode_bytes``.
    """
    image = decode_bytes(data, grey=True, max_pixels=max_pixels)
    row.height, row.width = image.shape[:2]
    if not _any_inside(row.landmarks or (), row.width, row.height):
        reason = f"all five points lie outside the {row.width}x{row.height} image"
        raise RejectedError("degenerate-landmarks", reason)
    if is_far_too_large(matrix, spec.size, row.width, row.height):
        reason = f"some points lie far outside the {row.width}x{row.height} image"
        raise RejectedError("degenerate-landmarks", reason)
    row.matrix = matrix.ravel().tolist()
    return _encoded(warp(image, matrix, spec.size, spec.warp), spec)


def framed_crop(row: Row, data: bytes, template: CropTemplate, spec: Preprocessing, max_pixels: int) -> bytes:
    """Returns the encoded crop of an image that is aligned to ``template``; sets size, points and matrix in ``row``.

    A JPEG that has the size and the template of ``spec`` is returned as it is.

    Raises:
        RejectedError: the image has not the shape of the template's crops.
        ImageError: see ``decode_bytes``.
    """
    same = template.is_of(spec)
    if same and is_storable(data, spec.size):
        row.height = row.width = spec.size
        _set_points(row, template, np.eye(2, 3))
        return data
    image = decode_bytes(data, max_pixels=max_pixels)
    row.height, row.width = image.shape[:2]
    if not template.fits(row.width, row.height):
        width, height = template.size
        expected = "square" if width == height else f"{width}x{height} px, or in proportion"
        raise RejectedError("not-square", f"{row.width}x{row.height} px; an aligned crop is {expected}")
    if same:
        scale = spec.size / row.width
        shift = (scale - 1) / 2  # coordinates begin at the centre of the first pixel
        _set_points(row, template, np.array([[scale, 0, shift], [0, scale, shift]]))
        return _encoded(resized(image, spec.size), spec)
    matrices, _ = fit_crops(template.points_in(row.width)[None], crop_points(spec, spec.size), spec)
    _set_points(row, template, matrices[0])
    return _encoded(warp(image, matrices[0], spec.size, spec.warp), spec)


def whole_crop(row: Row, data: bytes, spec: Preprocessing, max_pixels: int) -> bytes:
    """Returns an image resized whole and encoded; sets its size in ``row``.

    Raises:
        RejectedError: an image that should be an aligned crop is not square.
        ImageError: see ``decode_bytes``.
    """
    image = decode_bytes(data, max_pixels=max_pixels)
    row.height, row.width = image.shape[:2]
    if spec.aligned and row.height != row.width:
        raise RejectedError("not-square", f"{row.width}x{row.height} px; an aligned crop is square")
    return _encoded(resized(image, spec.size), spec)


def _set_points(row: Row, template: CropTemplate, matrix: np.ndarray) -> None:
    points = template.points_in(row.width or 0)
    row.landmarks, row.eye_distance = points.ravel().tolist(), float(eye_distances(points[None])[0])
    row.matrix = matrix.ravel().tolist()


def _encoded(crop: np.ndarray, spec: Preprocessing) -> bytes:
    if crop.ndim == 2:
        crop = cv2.cvtColor(crop, cv2.COLOR_GRAY2BGR)
    return cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, spec.jpeg_quality])[1].tobytes()


def _any_inside(landmarks: Sequence[float], width: int, height: int) -> bool:
    """Returns True if at least one of the points (x, y, x, y, ...) lies inside the image."""
    return any(0 <= x < width and 0 <= y < height for x, y in zip(landmarks[::2], landmarks[1::2], strict=True))
