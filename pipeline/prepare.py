"""From an image file to what the network sees: a request says how, and names the result for the cache."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import xxhash

from pipeline.align import TEMPLATES, fit_similarity, template_points, warp
from pipeline.sources.images import ImageError, decode_bytes, resized
from pipeline.sources.points import Point
from pipeline.spec import NO_TEMPLATE, Preprocessing, SpecError

VERSION = 1  # of what is done here; part of every cache key
_FREE = ("template", "size", "mean", "std", "jpeg_quality")  # fields that may differ between networks
_MOST_SIDE = 4096  # px of an aligned crop
_MOUTH = (3, 4)  # rows of the mouth's corners


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """One image, prepared in one way.

    Attributes:
        path: the image file.
        points: five landmarks, or four with the mouth's centre for its corners, px; (): it should have some and has
            none; None: the whole image is resized, its aspect ratio not kept.
        points_size: (width, height) of the image that ``points`` refer to; None: this one.
        side: of the aligned crop, px, before it is resized to the network's input; None: aligned at that size.
        down: the finished crop is degraded to this many px and back; None: it is not.
        place: table and row of the points, or the tables that have none, for messages: no part of the preparation.
    """

    path: Path
    points: tuple[Point, ...] | None = None
    points_size: tuple[int, int] | None = None
    side: int | None = None
    down: int | None = None
    place: str = dataclasses.field(default="", compare=False)


class NoCropError(ImageError):
    """A sound image whose landmarks give no crop."""


def check_supported(spec: Preprocessing, source: str) -> None:
    """Checks that images can be prepared here as a network's spec states.

    Args:
        source: the file that states ``spec``, for the message.

    Raises:
        SpecError: unknown template, or a field such as the filter or the colour order is not supported.
    """
    if spec.aligned and spec.template not in TEMPLATES:
        raise SpecError(
            f"{source}: preprocessing spec: template {spec.template!r} is unknown, expected {', '.join(TEMPLATES)} or"
            f" {NO_TEMPLATE}; score it with the version that trained it"
        )
    ours = Preprocessing() if spec.aligned else Preprocessing.unaligned()
    differing = {
        name: value for name, value in spec.to_dict().items() if name not in _FREE and getattr(ours, name) != value
    }
    if differing:
        says = "; ".join(
            f"{name}: checkpoint {value!r}, here {getattr(ours, name)!r}" for name, value in differing.items()
        )
        raise SpecError(f"{source}: preprocessing disagrees ({says}); use a checkpoint that was trained alike")


def cache_key(data: bytes, request: Request, spec: Preprocessing) -> bytes:
    """16 bytes that name (image, preparation)."""
    how = {**dataclasses.asdict(request), "path": None, "spec": spec.to_dict(), "version": VERSION}
    del how["place"]
    return xxhash.xxh3_128(xxhash.xxh3_128(data).digest() + json.dumps(how, sort_keys=True).encode()).digest()


def prepare(data: bytes, requests: list[Request], spec: Preprocessing) -> list[np.ndarray]:
    """What the network sees of one image file, for each request: (S, S, 3) uint8 RGB.

    Requests that differ only in ``down`` share the work up to there.

    Raises:
        ImageError: the file does not hold a whole image.
        NoCropError: its landmarks are missing or give no crop.
    """
    image = np.ascontiguousarray(decode_bytes(data)[..., ::-1])
    crops: dict[Request, np.ndarray] = {}
    out = []
    for request in requests:
        undegraded = dataclasses.replace(request, down=None)
        if undegraded not in crops:
            crops[undegraded] = _crop(image, undegraded, spec)
        crop, down = crops[undegraded], request.down or spec.size
        out.append(resized(resized(crop, down), spec.size))
    return out


def _crop(image: np.ndarray, request: Request, spec: Preprocessing) -> np.ndarray:
    if request.points is None:
        return resized(image, spec.size)
    if not request.points:
        raise NoCropError(f"no row for {request.path.stem} in {request.place}")
    its = f"its landmarks ({request.place})" if request.place else "its landmarks"
    points = np.array(request.points, np.float64)
    if not np.isfinite(points).all():
        raise NoCropError(f"{its} are not all finite numbers")
    if request.points_size is not None:
        points *= np.divide(image.shape[1::-1], request.points_size)
    side = spec.size if request.side is None else request.side
    matrices, good = fit_similarity(points[None], _target(spec.template, max(side, 1), len(points)))
    if not good[0]:
        raise NoCropError(f"{its} are in one place or on one line")
    if not 1 <= side <= _MOST_SIDE:
        raise NoCropError(f"{its} ask for a crop of {side} px, expected 1 to {_MOST_SIDE}")
    if not ((points >= 0) & (points < image.shape[1::-1])).all(1).any():
        raise NoCropError(f"{its} lie outside the image")
    return resized(warp(image, matrices[0], side), spec.size)


def _target(template: str, side: int, points: int) -> np.ndarray:
    """(points, 2) crop px of five landmarks, or of four with the mouth's centre."""
    target = template_points(template, side)
    return target if points == len(target) else np.vstack([target[: _MOUTH[0]], target[list(_MOUTH)].mean(0)])
