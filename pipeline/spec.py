"""The preprocessing spec: how an image file becomes the input of a network."""

from __future__ import annotations

import dataclasses
import numbers
import reprlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from shards.arguments import check_argument
from shards.errors import LrfrError
from shards.schema import Manifest

NO_TEMPLATE = "none"  # images are resized whole, ignoring aspect ratio and landmarks
RESIZE = "pillow-bicubic"  # filter of the whole-image resize
COLORS = ("RGB", "BGR")
FITS = ("inverse", "forward", "upright")
MAX_SIZE_PX = 1024  # a file from elsewhere may ask for any amount of memory
_MAX_NUMBER = 1e6
_FIXED_BY_PRETRAINING = ("size", "degradation")  # fine-tuning cannot change these
_OF_THE_NETWORK = ("color", "mean", "std")  # stored images do not depend on them
# fields that shards of the first versions do not have, with their defaults: they are written only if they are set
_ADDED: dict[str, Any] = {"points": None, "margin": 0.0, "fit": FITS[0], "stretch": 1.0}
Number = float | tuple[float, float, float]
"""One number for all channels, or one for each."""


class SpecError(LrfrError):
    """A preprocessing spec that is invalid, or that does not match another one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an image file becomes the input of a network. Stored in every shard set and checkpoint.

    Template ``none`` with warp ``pillow-bicubic`` means that images are resized whole, without alignment.

    The spec is compared before training and scoring, because a released model once lost eleven points when a library
    changed its default filter.

    Attributes:
        template: position of the five points in the crop, a key of ``pipeline.align.TEMPLATES``, or the name of
            ``points``.
        size: side of the square crop, px.
        warp: filter of the alignment.
        degradation: filter of the degraded views.
        color: channel order of the input, RGB or BGR. Stored and prepared images are RGB in either case.
        mean: subtracted from pixels in [0, 1]; one number, or one for each channel in the order of ``color``.
        std: divides them after that.
        jpeg_quality: quality of the stored crops, 1 to 100.
        points: x and y of left eye, right eye, nose, left and right mouth corner, as the viewer sees them, in px of a crop
            of ``size`` without margin. None: those of the template.
        margin: px of the crop outside the area of the template, left and right together (as facenet-pytorch's margin).
        fit: how the similarity transform is found: ``inverse`` minimises the error in px of the image (the reference),
            ``forward`` that in px of the crop (insightface), ``upright`` scales and moves as ``inverse`` does, without
            rotation (crops of a face box).
        stretch: how much wider faces are in the crop than in the image: 1.3 if face boxes, which are higher than wide, are
            resized to squares.
    """

    template: str = "seed"
    size: int = 128
    warp: str = "opencv-cubic"
    degradation: str = "pillow-bicubic"
    color: str = "RGB"
    mean: Number = 0.5
    std: Number = 0.5
    jpeg_quality: int = 95
    points: tuple[tuple[float, float], ...] | None = None
    margin: float = 0.0
    fit: str = "inverse"
    stretch: float = 1.0

    def __post_init__(self) -> None:
        """Raises: SpecError: a field is of the wrong type or out of range."""
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _converted(field.name, field.default, getattr(self, field.name)))
        most = sys.float_info.max
        for name, good, expected in (
            ("size", self.size > 0, "1 px or more"),
            ("mean", all(abs(value) <= most for value in channels(self.mean)), "a finite number"),
            ("std", all(0 < value <= most for value in channels(self.std)), "a finite number above 0"),
            ("jpeg_quality", 1 <= self.jpeg_quality <= 100, "1 to 100"),
            ("stretch", 0.1 <= self.stretch <= 10, "0.1 to 10"),
            ("margin", 0 <= self.margin < max(self.size, 1), "0 px or more, below the size"),
        ):
            if not good:
                raise SpecError(
                    f"preprocessing spec: {name} is {reprlib.repr(getattr(self, name))}, expected {expected};"
                    " restore the file that contains it"
                )
        if self.size > MAX_SIZE_PX:
            size = reprlib.repr(self.size)
            raise SpecError(f"preprocessing spec: size is {size} px, expected at most {MAX_SIZE_PX}")
        if (self.template == NO_TEMPLATE) != (self.warp == RESIZE):
            raise SpecError(
                f"preprocessing spec: template {self.template!r} does not fit warp {self.warp!r};"
                f" use {NO_TEMPLATE!r} only with {RESIZE!r}"
            )
        if not self.aligned and any(getattr(self, name) != value for name, value in _ADDED.items()):
            raise SpecError(f"preprocessing spec: template {NO_TEMPLATE!r} takes no {', '.join(_ADDED)}")

    @property
    def aligned(self) -> bool:
        """True if faces are aligned by landmarks, False if images are resized whole."""
        return self.template != NO_TEMPLATE

    @classmethod
    def unaligned(cls, **fields: Any) -> Preprocessing:
        """Returns a spec for images that are resized whole; ``fields`` are fields other than template and warp."""
        return cls(template=NO_TEMPLATE, warp=RESIZE, **fields)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Preprocessing:
        """Creates a spec from plain values.

        Raises:
            SpecError: a field is missing, unknown, of the wrong type or out of range.
        """
        check_argument(isinstance(record, Mapping), "record", record, "the dict that to_dict() returns")
        differing = set(record) ^ {field.name for field in dataclasses.fields(cls)}
        if differing := differing - (_ADDED.keys() - set(record)):
            raise SpecError(f"preprocessing spec: fields {sorted(map(str, differing))} are missing or unknown")
        return cls(**record)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain values, as JSON gives them back; points, margin, fit and stretch only if they are set."""
        fields = {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}
        return {name: value for name, value in fields.items() if name not in _ADDED or value != _ADDED[name]}

    def resized(self, size: int) -> Preprocessing:
        """Returns the same view of a face in crops of ``size`` px."""
        scale = size / self.size
        points = self.points and tuple((x * scale, y * scale) for x, y in self.points)
        return dataclasses.replace(self, size=size, points=points, margin=self.margin * scale)

    def differences(self, other: Preprocessing) -> list[str]:
        """Fields that are not as in ``other``, as text: ``color BGR, not RGB``."""
        return [
            f"{field.name} {_text(mine)}, not {_text(theirs)}"
            for field in dataclasses.fields(self)
            if (mine := getattr(self, field.name)) != (theirs := getattr(other, field.name))
            if field.name != "points" or self.template == other.template
        ]

    def __str__(self) -> str:
        """The spec in one line: template, size, colour order, range and unusual values."""
        named = f"template {self.template}" if self.aligned else "resized whole"
        text = f"{named}, {self.size} px, {self.color}, (x / 255 - {_text(self.mean)}) / {_text(self.std)}"
        unusual = [(name, getattr(self, name)) for name in ("warp", "fit", "margin", "stretch") if self.aligned]
        ours = {"warp": "opencv-cubic", **_ADDED}
        return ", ".join([text, *(f"{name} {_text(value)}" for name, value in unusual if value != ours[name])])

    def fine_tuned_on(self, images: Preprocessing) -> Preprocessing:
        """Returns the spec of a network that was trained with this spec and is fine-tuned on ``images``.

        Colour order, mean and std stay those of the network. Alignment and JPEG quality may differ: those of ``images``
        are used if they are aligned, otherwise those of this spec.

        Args:
            images: the spec of the shard set.

        Raises:
            SpecError: size or degradation differ.
        """
        differing = [
            f"{name}: checkpoint {getattr(self, name)!r}, shards {getattr(images, name)!r}"
            for name in _FIXED_BY_PRETRAINING
            if getattr(self, name) != getattr(images, name)
        ]
        if differing:
            raise SpecError(
                f"preprocessing differs ({'; '.join(differing)}); fine-tune on shards built with the checkpoint's preprocessing"
            )
        kept = {name: getattr(self, name) for name in _OF_THE_NETWORK}
        return dataclasses.replace(images, **kept) if images.aligned else self


def spec_of(manifest: Manifest) -> Preprocessing:
    """Returns the spec of a shard set. Raises: SpecError: see ``Preprocessing.from_dict``."""
    return Preprocessing.from_dict(manifest.preprocessing)


def channels(value: Number) -> tuple[float, float, float]:
    """Returns a number for each channel."""
    return value if isinstance(value, tuple) else (value, value, value)


def _converted(name: str, default: Any, value: Any) -> Any:
    """A field with Python's numbers for NumPy's, and tuples for lists. Raises: SpecError: it has the wrong type."""
    if isinstance(value, numbers.Number) and hasattr(value, "item"):
        value = value.item()
    expected = type(default).__name__
    if name == "points":
        good, expected = (
            value is None or _are_points(value),
            "five pairs of numbers: left eye, right eye, nose, corners of the mouth",
        )
    elif isinstance(default, float) and name in ("mean", "std") and isinstance(value, list | tuple):
        good, expected = _are_numbers(value, 3), "float, or three"
    else:
        good = type(value) in ((int, float) if isinstance(default, float) else (type(default),))
    if not good:
        raise SpecError(f"preprocessing spec: {name} is {reprlib.repr(value)}, expected {expected}")
    if name == "points" and value is not None:
        return tuple((float(x), float(y)) for x, y in value)
    if isinstance(value, list | tuple):
        return value[0] if len(set(value)) == 1 else tuple(map(float, value))
    return value


def _are_numbers(value: Any, count: int) -> bool:
    """Whether ``value`` holds ``count`` finite numbers of at most ``_MAX_NUMBER``."""
    if not isinstance(value, list | tuple) or len(value) != count:
        return False
    return all(type(one) in (int, float) and abs(one) <= _MAX_NUMBER for one in value)


def _are_points(value: Any) -> bool:
    """Whether ``value`` holds five points of a face, in their order."""
    good = isinstance(value, list | tuple) and len(value) == 5 and all(_are_numbers(point, 2) for point in value)
    return good and are_in_order(value)


def are_in_order(points: Sequence[Sequence[float]]) -> bool:
    """Whether the left eye of five points is left of the right one, and the mouth below them, not on one line with them."""
    left, right, _, *mouth = points
    across, down = right[0] - left[0], right[1] - left[1]
    x, y = ((one + other) / 2 for one, other in zip(*mouth, strict=True))
    below = across * (y - left[1]) > down * (x - left[0])
    return across > 0 and below and max(left[1], right[1]) < min(point[1] for point in mouth)


def _text(value: Any) -> str:
    """A value of a field: numbers with four digits at most."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"[{', '.join(map(_text, value))}]" if isinstance(value, tuple) else str(value)


def _plain(value: Any) -> Any:
    return [_plain(one) for one in value] if isinstance(value, tuple) else value
