"""Views: the sizes that an identity's images are degraded to."""

from __future__ import annotations

import dataclasses

from shards.errors import LrfrError


class ViewError(LrfrError):
    """Views that cannot be read. One line."""


@dataclasses.dataclass(frozen=True)
class View:
    """One image of each identity, degraded to ``low`` to ``high`` px, drawn anew for each image where they differ."""

    low: int
    high: int

    @property
    def name(self) -> str:
        """``8``, or ``8-32``."""
        return str(self.low) if self.low == self.high else f"{self.low}-{self.high}"


def parse_views(text: str) -> tuple[View, ...]:
    """Reads ``128,8-32,12x2``: sizes and ranges in px; ``x2`` for two images of each identity in that view.

    A size at or above that of the crops leaves them as they are.

    Raises:
        ViewError: something else, a size below 2 px, or a range that ends before it begins.
    """
    views: list[View] = []
    for part in text.split(","):
        sizes, times, count = part.strip().partition("x")
        low, dash, high = sizes.partition("-")
        numbers = [low, *([high] if dash else []), *([count] if times else [])]
        if not all(number.isascii() and number.isdigit() for number in numbers):
            raise ViewError(f"views {text!r}: found {part.strip()!r}, expected sizes in px such as 128, 8-32 or 12x2")
        view = View(int(low), int(high if dash else low))
        if view.low < 2 or view.high < view.low or (times and int(count) < 1):
            raise ViewError(
                f"views {text!r}: {part.strip()!r} is not a size of at least 2 px, or a rising range of them"
            )
        views += [view] * (int(count) if times else 1)
    return tuple(views)
