"""The preprocessing spec: how an image file becomes the input of a network."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from shards.errors import LrfrError
from shards.schema import Manifest

NO_TEMPLATE = "none"  # images are resized whole, without landmarks; the aspect ratio is not kept
RESIZE = "pillow-bicubic"  # the filter of that resize
_FIXED_BY_PRETRAINING = ("size", "degradation", "color", "mean", "std")  # fine-tuning cannot change these


class SpecError(LrfrError):
    """A preprocessing spec that is invalid, or that does not match another one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an image file becomes the input of a network. Stored with every shard set and every checkpoint.

    Template ``none`` together with warp ``pillow-bicubic`` means that images are resized whole, without alignment.

    The score of a released model fell by eleven points when a library changed its default filter. So the spec is
    compared before training and scoring.

    Attributes:
        template: where the five points go in the crop, a key of ``pipeline.align.TEMPLATES``.
        size: side of the square crop, px.
        warp, degradation: filters of the alignment and of the low-resolution views.
        color: channel order of the input.
        mean, std: normalisation of pixels in 0..1.
        jpeg_quality: of the stored crops.
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
        for name, good, expected in (
            ("size", self.size > 0, "1 px or more"),
            ("mean", math.isfinite(self.mean), "a finite number"),
            ("std", 0 < self.std < math.inf, "a finite number above 0"),
            ("jpeg_quality", 1 <= self.jpeg_quality <= 100, "1 to 100"),
        ):
            if not good:
                raise SpecError(
                    f"preprocessing spec: {name} is {getattr(self, name)}, expected {expected};"
                    " restore the file that states it"
                )
        if (self.template == NO_TEMPLATE) != (self.warp == RESIZE):
            raise SpecError(
                f"preprocessing spec: template {self.template!r} does not go with warp {self.warp!r};"
                f" {NO_TEMPLATE!r} and {RESIZE!r} belong together"
            )

    @property
    def aligned(self) -> bool:
        """True where faces are aligned by landmarks, False where images are resized whole."""
        return self.template != NO_TEMPLATE

    @classmethod
    def unaligned(cls, **fields: Any) -> Preprocessing:
        """The spec of images that are resized whole; ``fields`` other than template and warp as given."""
        return cls(template=NO_TEMPLATE, warp=RESIZE, **fields)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Preprocessing:
        """The spec in ``record``.

        Raises:
            SpecError: fields are missing or unknown, or not of their type.
        """
        defaults = {field.name: field.default for field in dataclasses.fields(cls)}
        if set(record) != set(defaults):
            raise SpecError(f"preprocessing spec: fields {sorted(set(record) ^ set(defaults))} are missing or unknown")
        for name, default in defaults.items():
            kinds = (int, float) if isinstance(default, float) else (type(default),)
            if type(record[name]) not in kinds:
                raise SpecError(f"preprocessing spec: {name} is {record[name]!r}, expected {kinds[-1].__name__}")
        return cls(**record)

    def to_dict(self) -> dict[str, Any]:
        """The spec as JSON-able fields."""
        return dataclasses.asdict(self)

    def fine_tuned_on(self, images: Preprocessing) -> Preprocessing:
        """How to prepare images for a network that learned by this spec and goes on by that of ``images``.

        Alignment and JPEG quality may differ. A face with landmarks is aligned as the network last saw one:
        by ``images`` where they are aligned, by this spec where they were only resized. An image without
        landmarks is resized whole either way.

        Raises:
            SpecError: they differ in what the first layers learned to expect.
        """
        differing = [
            f"{name}: checkpoint {getattr(self, name)!r}, shards {getattr(images, name)!r}"
            for name in _FIXED_BY_PRETRAINING
            if getattr(self, name) != getattr(images, name)
        ]
        if differing:
            raise SpecError(
                f"preprocessing disagrees ({'; '.join(differing)}); fine-tune on shards that were built alike"
            )
        return images if images.aligned else self


def spec_of(manifest: Manifest) -> Preprocessing:
    """The spec of a shard set. Raises: SpecError: as ``Preprocessing.from_dict``."""
    return Preprocessing.from_dict(manifest.preprocessing)
