"""The preprocessing spec: how an image file becomes the input of a network."""

from __future__ import annotations

import dataclasses
import numbers
import reprlib
import sys
from collections.abc import Mapping
from typing import Any

from shards.arguments import check_argument
from shards.errors import LrfrError
from shards.schema import Manifest

NO_TEMPLATE = "none"  # images are resized whole, ignoring aspect ratio and landmarks
RESIZE = "pillow-bicubic"  # filter of the whole-image resize
MAX_SIZE_PX = 1024  # a file from elsewhere may ask for any amount of memory
_FIXED_BY_PRETRAINING = ("size", "degradation", "color", "mean", "std")  # fine-tuning cannot change these


class SpecError(LrfrError):
    """A preprocessing spec that is invalid, or that does not match another one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an image file becomes the input of a network. Stored in every shard set and checkpoint.

    Template ``none`` with warp ``pillow-bicubic`` means that images are resized whole, without alignment.

    The spec is compared before training and scoring, because a released model once lost eleven points when a library
    changed its default filter.

    Attributes:
        template: position of the five points in the crop, a key of ``pipeline.align.TEMPLATES``.
        size: side of the square crop, px.
        warp: filter of the alignment.
        degradation: filter of the degraded views.
        color: channel order of the input.
        mean: subtracted from pixels in [0, 1].
        std: divides them after that.
        jpeg_quality: quality of the stored crops, 1 to 100.
    """

    template: str = "seed"
    size: int = 128
    warp: str = "opencv-cubic"
    degradation: str = "pillow-bicubic"
    color: str = "RGB"
    mean: float = 0.5
    std: float = 0.5
    jpeg_quality: int = 95

    def __post_init__(self) -> None:
        """Raises: SpecError: a field is of the wrong type or out of range."""
        self._check_types()
        for name, good, expected in (
            ("size", self.size > 0, "1 px or more"),
            ("mean", abs(self.mean) <= sys.float_info.max, "a finite number"),
            ("std", 0 < self.std <= sys.float_info.max, "a finite number above 0"),
            ("jpeg_quality", 1 <= self.jpeg_quality <= 100, "1 to 100"),
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

    def _check_types(self) -> None:
        """Makes numbers of NumPy Python's. Raises: SpecError: a field has the wrong type."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, numbers.Number) and hasattr(value, "item"):
                value = value.item()
                object.__setattr__(self, field.name, value)
            kinds = (int, float) if isinstance(field.default, float) else (type(field.default),)
            if type(value) not in kinds:
                raise SpecError(
                    f"preprocessing spec: {field.name} is {reprlib.repr(value)}, expected {kinds[-1].__name__}"
                )

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
        if differing := set(record) ^ {field.name for field in dataclasses.fields(cls)}:
            raise SpecError(f"preprocessing spec: fields {sorted(map(str, differing))} are missing or unknown")
        return cls(**record)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain values."""
        return dataclasses.asdict(self)

    def fine_tuned_on(self, images: Preprocessing) -> Preprocessing:
        """Returns the spec of a network that was trained with this spec and is fine-tuned on ``images``.

        Alignment and JPEG quality may differ: those of ``images`` are used if they are aligned, otherwise those of this
        spec.

        Args:
            images: the spec of the shard set.

        Raises:
            SpecError: another field differs.
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
        return images if images.aligned else self


def spec_of(manifest: Manifest) -> Preprocessing:
    """Returns the spec of a shard set. Raises: SpecError: see ``Preprocessing.from_dict``."""
    return Preprocessing.from_dict(manifest.preprocessing)
