"""Views: the sizes that the images of an identity are degraded to."""

from __future__ import annotations

import dataclasses
import re

from model.options import OptionError


@dataclasses.dataclass(frozen=True)
class View:
    """Images degraded to ``low`` to ``high`` px, a random size for each image.

    Attributes:
        count: images of each identity.
    """

    low: int
    high: int
    count: int = 1

    @property
    def name(self) -> str:
        """``8`` or ``8-32``."""
        return str(self.low) if self.low == self.high else f"{self.low}-{self.high}"

    def __str__(self) -> str:
        """The text that ``parse_views`` reads, such as ``8-32x2``."""
        return self.name if self.count == 1 else f"{self.name}x{self.count}"


def parse_views(text: str) -> tuple[View, ...]:
    """Reads ``128,8-32,12x2``: sizes and ranges in px; ``x2`` for two images of each identity in that view.

    A size at or above that of the crops leaves them unchanged.

    Raises:
        OptionError: malformed text, a size below 2 px, a descending range, or a count of 0.
    """
    views = []
    for part in text.split(","):
        # a settings file or checkpoint may state any number: there are at most 999 images of an identity
        match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?(?:x(\d{1,3}))?", part.strip(), re.ASCII)
        found = f"views {text!r}: found {part.strip()!r}"
        if not match:
            raise OptionError(f"{found}, expected sizes in px such as 128, 8-32 or 12x2")
        low, high, count = match.groups()
        view = View(int(low), int(high or low), int(count or 1))
        if view.count < 1:
            raise OptionError(f"{found}, expected at least one image of each identity")
        if view.low < 2 or view.high < view.low:
            raise OptionError(f"{found}, expected sizes of at least 2 px, the smaller first")
        views.append(view)
    return tuple(views)
