"""Square views of an image: the whole of it, tiles, and faces turned upright. Points are complex, x + iy.

Coordinates are continuous px. The image covers 0 to width + i height, as in MediaPipe: the centre of its first pixel is
0.5 + 0.5i.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import TypeVar

import cv2
import numpy as np

# Of the whole image, in fractions of its longer side, in the order of trying. They repeat the outermost pixels: the
# detector misses some faces that fill an image, and some that are blurred, but others at each size.
BORDERS = (0.2, 0.6, 0.0)
FACE_FACTOR = 1.5  # side of a face's view over the side of its box
MIN_TILE_PX = 128
MAX_PADDED_PX = 1024  # side; copying a larger image takes longer than padding saves
TILE_LEVELS = 3  # the smallest tiles have an eighth of the longer side

Points = TypeVar("Points", complex, np.ndarray)


@dataclasses.dataclass(frozen=True)
class View:
    """A square of ``size`` px that shows the point p of an image at ``factor * p + shift``."""

    factor: complex
    shift: complex
    size: int

    @classmethod
    def around(cls, centre: complex, side: float, size: int, turn: float = 0.0) -> View:
        """The view of a square with a side of ``side`` image px, turned clockwise by ``turn`` radians."""
        factor = complex(math.cos(turn), -math.sin(turn)) * (size / side)
        return cls(factor, complex(size / 2, size / 2) - factor * centre, size)

    @property
    def side(self) -> float:
        """Side of the square that the view shows, image px."""
        return self.size / abs(self.factor)

    def to_image(self, points: Points) -> Points:
        """Maps points of the view to the image."""
        return (points - self.shift) / self.factor


class Image:
    """An image that can be sampled at any scale."""

    def __init__(self, pixels: np.ndarray) -> None:
        """
        Args:
            pixels: (H, W, 3) or (H, W) uint8.
        """
        self.height, self.width = pixels.shape[:2]
        self._levels = [pixels]  # each half the size of the one before it

    def sample(self, view: View) -> np.ndarray:
        """Returns a (size, size[, 3]) view; beyond the image its outermost pixels are repeated."""
        level = self._level(int(max(-math.log2(abs(view.factor)), 0)))
        across, down = self.width / level.shape[1], self.height / level.shape[0]
        a, b, shift = view.factor.real, view.factor.imag, view.shift
        if b == 0 and max(level.shape) <= MAX_PADDED_PX:  # OpenCV's bounds checks are slow
            pad = max(math.ceil(shift.real / (a * across)), math.ceil(shift.imag / (a * down)), 0) + 1
            level = cv2.copyMakeBorder(level, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
            shift -= pad * a * complex(across, down)
        # OpenCV's coordinates, where the centre of the first pixel is 0
        matrix = (
            (a * across, -b * down, shift.real + (a * across - b * down - 1) / 2),
            (b * across, a * down, shift.imag + (b * across + a * down - 1) / 2),
        )
        return cv2.warpAffine(
            level,
            np.array(matrix),
            (view.size, view.size),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )

    def _level(self, number: int) -> np.ndarray:
        """The image halved ``number`` times, as far as it goes."""
        while len(self._levels) <= number and min(self._levels[-1].shape[:2]) > 1:
            height, width = self._levels[-1].shape[:2]
            half = (max(width // 2, 1), max(height // 2, 1))
            self._levels.append(cv2.resize(self._levels[-1], half, interpolation=cv2.INTER_AREA))
        return self._levels[min(number, len(self._levels) - 1)]


def searches(width: int, height: int, size: int) -> Iterator[list[View]]:
    """Yields the views of each search for a face, the most promising search first.

    First the whole image with a border, then smaller and smaller tiles, each overlapping half of the next one.
    """
    side = max(width, height)
    for border in BORDERS:
        yield [View.around(complex(width / 2, height / 2), side * (1 + 2 * border), size)]
    for level in range(1, TILE_LEVELS + 1):
        tile = side / 2**level
        if tile >= MIN_TILE_PX:
            rows, columns = _tile_centres(height, tile), _tile_centres(width, tile)
            yield [View.around(complex(x, y), tile, size) for y in rows for x in columns]


def _tile_centres(length: int, side: float) -> list[float]:
    """Centres of tiles along one axis, evenly spaced from border to border."""
    if length <= side:
        return [length / 2]
    count = math.ceil((length - side) / (side / 2) - 1e-9) + 1
    return np.linspace(side / 2, length - side / 2, count).tolist()
