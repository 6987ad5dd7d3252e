"""Prepares images for a network: decode, align or resize, degrade."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from pipeline.align import FILTERS, TEMPLATES, crop_points, fit_crops, is_far_too_large, resized, warp
from pipeline.degradation.presets import Degradation
from pipeline.images.decode import MAX_PIXELS, ImageError, bytes_limit, decode_bytes, read_regular
from pipeline.images.file_part import FilePart, read_part
from pipeline.sources.templates import CropTemplate
from pipeline.spec import COLORS, FITS, NO_TEMPLATE, RESIZE, Preprocessing, SpecError
from pipeline.tables.landmark_table import Point
from shards.arguments import check_argument, check_path, check_whole

VERSION = 1  # of the pixels that `prepare` returns; part of every cache key
MAX_SIDE_PX = 4096  # of an aligned crop
_POINTS = "a tuple of five or four pairs (x, y), an empty one, or None"
_MOUTH_CORNERS = (3, 4)  # rows of the five points


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """One image and how to prepare it.

    Attributes:
        path: the image file, or a file that holds it among others.
        part: where in ``path`` the image file lies; None: it is the whole of it.
        points: five landmarks in px, or four: eyes, nose, centre of the mouth. An empty tuple means that the
            image must be aligned but has no landmarks. None: resize the whole image, ignoring its aspect ratio.
        points_size: (width, height) of the image that ``points`` refer to; None: this image.
        template: the template of an aligned crop, whose points are used in place of ``points``. None: the image is no
            aligned crop.
        side: side of the aligned crop in px, before it is resized to the input size; None: the input size.
        down: size in px that the crop is degraded to; None: not degraded.
        degradation: how; None: by the bicubic filter, and nothing else.
        place: table and row of ``points``, or the tables without a row for this image. Used in messages only.
        problem: why there are no points; empty if the tables have no row for the image. Used in messages only.
    """

    path: Path
    part: FilePart | None = None
    points: tuple[Point, ...] | None = None
    points_size: tuple[int, int] | None = None
    template: CropTemplate | None = None
    side: int | None = None
    down: int | None = None
    degradation: Degradation | None = None
    place: str = dataclasses.field(default="", compare=False)
    problem: str = dataclasses.field(default="", compare=False)

    def __post_init__(self) -> None:
        """Raises: TypeError, ValueError: a field has a wrong type or value."""
        object.__setattr__(self, "path", check_path("path", self.path))
        for name, least in (("side", None), ("down", 1)):  # `prepare` reports a side that landmarks give
            if (number := getattr(self, name)) is not None:
                object.__setattr__(self, name, check_whole(name, number, least))
        check_argument(self.points is None or _are_points(self.points), "points", self.points, _POINTS)
        check_argument(isinstance(self.part, FilePart | None), "part", self.part, "a FilePart or None")
        check_argument(
            isinstance(self.template, CropTemplate | None), "template", self.template, "a CropTemplate or None"
        )
        good = isinstance(self.degradation, Degradation | None)
        check_argument(good, "degradation", self.degradation, "a Degradation or None")
        size = self.points_size
        check_argument(size is None or _is_pair(size), "points_size", size, "a tuple (width, height), or None")

    @property
    def name(self) -> str:
        """Name of the image in messages and results."""
        return str(self.path) if self.part is None else f"{self.path}: image {self.part.number}"

    def read(self, max_pixels: int = MAX_PIXELS) -> bytes:
        """Returns the image file.

        Raises:
            OSError: it cannot be read.
            ImageError: it is larger than files of ``max_pixels`` may be.
        """
        limit = bytes_limit(max_pixels)
        return read_regular(self.path, limit) if self.part is None else read_part(self.path, self.part, limit)

    @property
    def preparation(self) -> dict[str, Any]:
        """The fields that determine the pixels, apart from the image itself."""
        fields: dict[str, Any] = {
            "points": self.points,
            "points_size": self.points_size,
            "side": self.side,
            "down": self.down,
        }
        if self.template is not None:
            fields["template"] = self.template.to_list()
        if self.down is not None and self.degradation is not None:
            fields["degradation"] = self.degradation.digest
        return fields

    @property
    def aligned(self) -> bool:
        """Whether the image is aligned by points."""
        return self.points is not None or self.template is not None


def _are_points(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) in (0, 4, 5) and all(map(_is_pair, value))


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(isinstance(number, int | float) for number in value)


class NoCropError(ImageError):
    """The image is readable, but its landmarks give no crop."""

    remedy = "correct the landmark table or name another one with --landmarks"


class WrongShapeError(NoCropError):
    """The image has not the shape of the aligned crops that it is said to be."""

    remedy = "name the template of the crops with --aligned"


def check_supported(spec: Preprocessing, source: str) -> None:
    """Checks that ``prepare`` supports the preprocessing spec of a network.

    Args:
        source: the file that states ``spec``, for the message.

    Raises:
        SpecError: unknown template, or an unsupported value of another field such as the filter or the colour order.
    """
    if spec.aligned and spec.points is None and spec.template not in TEMPLATES:
        raise SpecError(
            f"{source}: preprocessing spec: template {spec.template!r} is unknown, expected {', '.join(TEMPLATES)} or"
            f" {NO_TEMPLATE}, or points of its own; score it with the version that trained it"
        )
    supported = {
        "warp": FILTERS if spec.aligned else (RESIZE,),
        "degradation": (RESIZE,),
        "color": COLORS,
        "fit": FITS,
    }
    mismatches = "; ".join(
        f"{name}: checkpoint {getattr(spec, name)!r}, supported {' or '.join(map(repr, values))}"
        for name, values in supported.items()
        if getattr(spec, name) not in values
    )
    if mismatches:
        raise SpecError(
            f"{source}: unsupported preprocessing ({mismatches}); score it with the version that trained it"
        )


def cache_key(data: bytes, request: Request, spec: Preprocessing) -> bytes:
    """16-byte key of a prepared image: a hash of the file's content, the preparation and the spec."""
    preparation = {**request.preparation, "path": None, "spec": spec.to_dict(), "version": VERSION}
    return xxhash.xxh3_128(xxhash.xxh3_128(data).digest() + json.dumps(preparation, sort_keys=True).encode()).digest()


def prepare(
    data: bytes, requests: list[Request], spec: Preprocessing, max_pixels: int = MAX_PIXELS
) -> list[np.ndarray]:
    """Prepares one image file for each of several requests.

    Requests that differ only in how they are degraded share the aligned crop.

    Args:
        data: content of the image file.
        max_pixels: an image that states more is an error.

    Returns:
        For each request the (S, S, 3) uint8 RGB input of the network, S being ``spec.size``; what ``spec.color``, ``mean``
        and ``std`` say is done later, by the embedder.

    Raises:
        ImageError: the file is not an image, is damaged, or states too many pixels.
        NoCropError: the landmarks are missing or give no crop.
        TypeError: an argument has a wrong type.
    """
    check_argument(isinstance(data, bytes), "data", data, "the bytes of an image file, as path.read_bytes()")
    good = isinstance(requests, list | tuple) and all(isinstance(one, Request) for one in requests)
    check_argument(good, "requests", requests, "a list of Requests")
    check_argument(isinstance(spec, Preprocessing), "spec", spec, "a Preprocessing")
    check_whole("max_pixels", max_pixels)
    image = np.ascontiguousarray(decode_bytes(data, max_pixels=max_pixels)[..., ::-1])
    crops: dict[Request, np.ndarray] = {}
    inputs = []
    for request in requests:
        undegraded = dataclasses.replace(request, down=None, degradation=None)
        if undegraded not in crops:
            crops[undegraded] = _crop(image, undegraded, spec)
        inputs.append(_degraded(crops[undegraded], request, data))
    return inputs


def _degraded(crop: np.ndarray, request: Request, data: bytes) -> np.ndarray:
    """The (S, S, 3) crop at the size of the request and back. What a preset draws depends on the image file alone."""
    side = len(crop)
    if request.degradation is None or request.down is None or request.down >= side:
        return resized(resized(crop, request.down or side), side)
    from pipeline.degradation.realistic import degrade_image  # PyTorch

    digest = xxhash.xxh3_128_intdigest(data)
    return degrade_image(crop, request.down, request.degradation.preset, (digest >> 64, digest & (1 << 64) - 1))


def _crop(image: np.ndarray, request: Request, spec: Preprocessing) -> np.ndarray:
    """The undegraded (S, S, 3) crop."""
    if not request.aligned:
        return resized(image, spec.size)
    landmarks = f"landmarks ({request.place})" if request.place else "landmarks"
    points = _points(image, request)
    if not np.isfinite(points).all():
        raise NoCropError(f"{landmarks} are not all finite numbers")
    if request.points_size is not None:
        points *= np.divide(image.shape[1::-1], request.points_size)
    side = spec.size if request.side is None else request.side
    matrices, valid = fit_crops(points[None], _target_points(spec, max(side, 1), len(points)), spec)
    if not valid[0]:
        raise NoCropError(f"{landmarks} coincide or lie on one line")
    if not 1 <= side <= MAX_SIDE_PX:
        raise NoCropError(f"{landmarks} give a crop of {side} px, expected 1 to {MAX_SIDE_PX}")
    if not ((points >= 0) & (points < image.shape[1::-1])).all(1).any():
        raise NoCropError(f"{landmarks} lie outside the image")
    if is_far_too_large(matrices[0], side, *image.shape[1::-1]):
        raise NoCropError(f"{landmarks} lie far outside the image")
    return resized(warp(image, matrices[0], side, spec.warp), spec.size)


def _points(image: np.ndarray, request: Request) -> np.ndarray:
    """(5, 2) or (4, 2) landmarks of an image that is aligned."""
    if request.template is not None:
        height, width = image.shape[:2]
        if not request.template.fits(width, height):
            expected = "x".join(map(str, request.template.size))
            raise WrongShapeError(
                f"{width}x{height} px, not the shape of crops of {expected} px ({request.template.name})"
            )
        return request.template.points_in(width)
    if not request.points:
        raise NoCropError(request.problem or f"no row for {request.path.stem} in {request.place}")
    return np.array(request.points, np.float64)


def _target_points(spec: Preprocessing, side: int, count: int) -> np.ndarray:
    """(count, 2) positions in a crop of ``side`` px: five points, or four with the centre of the mouth."""
    target = crop_points(spec, side)
    if count == len(target):
        return target
    return np.vstack([target[: _MOUTH_CORNERS[0]], target[list(_MOUTH_CORNERS)].mean(0)])
