"""Views: the sizes that the images of an identity are degraded to."""

from __future__ import annotations

import dataclasses
import re

from model.options import OptionError
from pipeline.degradation.presets import Degradation, check_size, find_degradation
from pipeline.degradation.settings import PresetError


@dataclasses.dataclass(frozen=True)
class View:
    """Images degraded to ``low`` to ``high`` px, a random size for each image.

    Attributes:
        count: images of each identity.
        degradation: how; None: resized by the bicubic filter, and nothing else.
    """

    low: int
    high: int
    count: int = 1
    degradation: Degradation | None = None

    @property
    def name(self) -> str:
        """``8``, ``8-32`` or ``8-32@webcam``."""
        return self._sizes + (f"@{self.degradation.label}" if self.degradation else "")

    @property
    def _sizes(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low}-{self.high}"

    @property
    def for_loader(self) -> tuple[int, int] | tuple[int, int, Degradation]:
        """The view as ``Loader(views=...)`` takes it."""
        return (self.low, self.high, self.degradation) if self.degradation else (self.low, self.high)

    def __str__(self) -> str:
        """The text that ``parse_views`` reads, such as ``8-32x2@webcam``."""
        count = "" if self.count == 1 else f"x{self.count}"
        return f"{self._sizes}{count}" + (f"@{self.degradation}" if self.degradation else "")


def parse_views(text: str) -> tuple[View, ...]:
    """Reads ``128,8-32,12x2@webcam``: sizes and ranges in px; ``x2`` for two images of each identity in that view.

    What follows ``@`` is a preset of realistic degradation, see ``find_degradation``.

    A size at or above that of the crops leaves them unchanged.

    Raises:
        OptionError: malformed text, a size below 2 px, a descending range, a count of 0, or an unknown preset.
    """
    views = []
    for part in text.split(","):
        # a settings file or checkpoint may state any number: there are at most 999 images of an identity
        match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?(?:x(\d{1,3}))?(?:@(.+))?", part.strip(), re.ASCII)
        found = f"views {text!r}: found {part.strip()!r}"
        if not match:
            raise OptionError(f"{found}, expected sizes in px such as 128, 8-32, 12x2 or 8-32@surveillance")
        low, high, count, preset = match.groups()
        view = View(int(low), int(high or low), int(count or 1), _degradation(preset, int(high or low), found))
        if view.count < 1:
            raise OptionError(f"{found}, expected at least one image of each identity")
        if view.low < 2 or view.high < view.low:
            raise OptionError(f"{found}, expected sizes of at least 2 px, the smaller first")
        views.append(view)
    return tuple(views)


def _degradation(preset: str | None, high: int, found: str) -> Degradation | None:
    if preset is None:
        return None
    try:
        check_size(high)
        return find_degradation(preset)
    except PresetError as error:
        raise OptionError(f"{found}: {error}") from None
