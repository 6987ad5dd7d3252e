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
MAX_PADDED_PX = 2048  # side; OpenCV's bounds checks double the time of a warp, but copying a larger image takes longer
ROUNDING_PX = 1e-6  # of computed coordinates
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
        number = self._level(int(max(-math.log2(abs(view.factor)), 0)))
        pixels = self._levels[number]
        view = View(view.factor * 2**number, view.shift, view.size)
        if overhang := _overhang(view, pixels):
            pad = math.ceil(overhang) + 1
            if max(pixels.shape) + 2 * pad > MAX_PADDED_PX:
                return _warped(view, pixels)
            pixels = cv2.copyMakeBorder(pixels, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
            view = View(view.factor, view.shift - complex(pad, pad) * view.factor, view.size)
        return _cut(view, pixels) if _is_whole(view) else _warped(view, pixels)

    def _level(self, number: int) -> int:
        """Halves the image ``number`` times, or as often as possible, and returns how often.

        The last row or column of an odd number is dropped, so that the scale is a power of two.
        """
        while len(self._levels) <= number and min(self._levels[-1].shape[:2]) > 1:
            height, width = (length // 2 for length in self._levels[-1].shape[:2])
            even = self._levels[-1][: 2 * height, : 2 * width]
            self._levels.append(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA))
        return min(number, len(self._levels) - 1)


def _overhang(view: View, pixels: np.ndarray) -> float:
    """How far a view extends beyond the pixels, px."""
    height, width = pixels.shape[:2]
    centre, turn = view.to_image(complex(view.size, view.size) / 2), view.factor / abs(view.factor)
    x, y, reach = centre.real, centre.imag, view.side / 2 * (abs(turn.real) + abs(turn.imag))
    return max(reach - x, reach - y, x + reach - width, y + reach - height, 0)


def _is_whole(view: View) -> bool:
    """Returns True if the view is an upright square of whole pixels."""
    corner = view.to_image(0j)
    numbers = corner.real, corner.imag, view.side
    return view.factor.imag == 0 and all(abs(number - round(number)) < ROUNDING_PX for number in numbers)


def _cut(view: View, pixels: np.ndarray) -> np.ndarray:
    """A view of whole pixels that lie inside: three times as fast as ``_warped``."""
    corner, side = view.to_image(0j), round(view.side)
    left, top = round(corner.real), round(corner.imag)
    square = pixels[top : top + side, left : left + side]
    return cv2.resize(square, (view.size, view.size), interpolation=cv2.INTER_LINEAR)


def _warped(view: View, pixels: np.ndarray) -> np.ndarray:
    a, b, shift = view.factor.real, view.factor.imag, view.shift
    # OpenCV's coordinates, where the centre of the first pixel is 0
    matrix = np.array(((a, -b, shift.real + (a - b - 1) / 2), (b, a, shift.imag + (b + a - 1) / 2)))
    size = (view.size, view.size)
    return cv2.warpAffine(pixels, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def searches(width: int, height: int, size: int) -> Iterator[list[View]]:
    """Yields the views of each search for a face, the most promising search first.

    First the whole image with a border, then smaller and smaller tiles, each overlapping half of the next one.
    """
    side = max(width, height)
    for border in BORDERS:
        whole = side + 2 * round(border * side)
        corner = complex((width - whole) // 2, (height - whole) // 2)  # whole px are cut out, not warped
        yield [View.around(corner + complex(whole, whole) / 2, whole, size)]
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
