"""Small pictures and histograms of a page."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

TILE_PX = 112  # of a picture on a page, as style.css shows it
QUALITY = 80


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tile:
    """A small picture with a caption; without ``jpeg`` a gap."""

    caption: str
    detail: str = ""
    jpeg: bytes | None = None


def thumbnail(image: np.ndarray, points: Sequence[float] | None = None) -> bytes:
    """Encodes an image as a JPEG of at most ``TILE_PX`` px a side.

    Args:
        image: (H, W, 3) or (H, W) uint8, BGR.
        points: x, y, x, y, ... in px of ``image``, drawn as dots.
    """
    scale = TILE_PX / max(image.shape[:2])
    size = [max(round(side * scale), 1) for side in image.shape[1::-1]]
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    small = small if small.ndim == 3 else cv2.cvtColor(small, cv2.COLOR_GRAY2BGR)
    dots = np.array(points if points is not None else (), float).reshape(-1, 2) * scale
    for x, y in dots[((dots >= 0) & (dots < TILE_PX)).all(1)].astype(int).tolist():
        cv2.circle(small, (x, y), 2, (255, 255, 255), -1)
        cv2.circle(small, (x, y), 1, (180, 70, 0), -1)
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Histogram:
    """Counts of values between edges.

    Attributes:
        edges: ascending; the last bin has no upper end.
        whole: the values are counts, so that a bin is named by the numbers in it.
    """

    title: str
    counts: Sequence[int]
    edges: Sequence[float]
    whole: bool = False

    @classmethod
    def of(cls, title: str, values: np.ndarray, edges: Sequence[float], whole: bool = False) -> Histogram:
        """Counts values."""
        counts = np.histogram(values, [*edges, np.inf])[0].tolist()
        return cls(title=title, counts=counts, edges=edges, whole=whole)

    @property
    def rows(self) -> list[tuple[str, int, float]]:
        """Label, count and length of each bar, the latter in percent of the longest one."""
        labels = [self._label(low, high) for low, high in zip(self.edges, self.edges[1:], strict=False)]
        most = max(*self.counts, 1)
        return [
            (label, count, round(100 * count / most, 1))
            for label, count in zip([*labels, f"{self.edges[-1]:g}+"], self.counts, strict=True)
        ]

    def _label(self, low: float, high: float) -> str:
        last = high - 1 if self.whole else high
        return f"{low:g}" if last == low else f"{low:g}{' to ' if low < 0 else '-'}{last:g}"
