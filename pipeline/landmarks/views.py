"""Square views of an image: the whole of it, tiles, and faces turned upright. Coordinates are continuous px.

The image covers (0, 0) to (width, height), as in MediaPipe: the centre of its first pixel is (0.5, 0.5).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import cv2
import numpy as np

# Of the whole image, in fractions of its longer side, in the order of trying. They repeat the outermost pixels: the
# detector misses some faces that fill an image, and some that are blurred, but others at each size.
BORDERS = (0.2, 0.6, 0.0)
FACE_FACTOR = 1.5  # side of a face's view over the side of its box
MIN_TILE_PX = 128
TILE_LEVELS = 3  # the smallest tiles have an eighth of the longer side


class Image:
    """An image that can be sampled at any scale."""

    def __init__(self, pixels: np.ndarray) -> None:
        """
        Args:
            pixels: (H, W, 3) or (H, W) uint8.
        """
        self.height, self.width = pixels.shape[:2]
        self._levels = [pixels]  # each half the size of the one before it

    def sample(self, matrix: np.ndarray, size: int) -> np.ndarray:
        """Returns a (size, size[, 3]) view; beyond the image its outermost pixels are repeated.

        Args:
            matrix: (2, 3) similarity, image -> view.
        """
        scale = math.hypot(matrix[0, 0], matrix[0, 1])
        level = self._level(int(max(-math.log2(scale), 0)))
        ratio = np.array([self.width / level.shape[1], self.height / level.shape[0]])
        linear = matrix[:, :2] * ratio
        shift = matrix[:, 2] + linear.sum(1) / 2 - 0.5  # to OpenCV's coordinates, where the first pixel is 0
        return cv2.warpAffine(
            level,
            np.column_stack([linear, shift]),
            (size, size),
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


def searches(width: int, height: int, size: int) -> Iterator[list[np.ndarray]]:
    """Yields the views of each search for a face, the most promising search first, as (2, 3) matrices image -> view.

    First the whole image with a border, then smaller and smaller tiles, each overlapping half of the next one.
    """
    side = max(width, height)
    for border in BORDERS:
        yield [_upright_view(width / 2, height / 2, side * (1 + 2 * border), size)]
    for level in range(1, TILE_LEVELS + 1):
        tile = side / 2**level
        if tile >= MIN_TILE_PX:
            rows, columns = _tile_centres(height, tile), _tile_centres(width, tile)
            yield [_upright_view(x, y, tile, size) for y in rows for x in columns]


def face_view(centre: np.ndarray, side: float, left_eye: np.ndarray, right_eye: np.ndarray, size: int) -> np.ndarray:
    """The matrix of a view with a face in the middle and its eyes level.

    Args:
        side: of the view, image px.
    """
    angle = math.atan2(*(right_eye - left_eye)[::-1])  # 0 if the eyes coincide
    cos, sin = math.cos(angle) * size / side, math.sin(angle) * size / side
    linear = np.array([[cos, sin], [-sin, cos]])
    return np.column_stack([linear, size / 2 - linear @ centre])


def to_image(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Maps (N, 2) points of a view to the image."""
    return np.linalg.solve(matrix[:, :2], (points - matrix[:, 2]).T).T


def _upright_view(x: float, y: float, side: float, size: int) -> np.ndarray:
    scale = size / side
    return np.array([[scale, 0, size / 2 - scale * x], [0, scale, size / 2 - scale * y]])


def _tile_centres(length: int, side: float) -> list[float]:
    """Centres of tiles along one axis, evenly spaced from border to border."""
    if length <= side:
        return [length / 2]
    count = math.ceil((length - side) / (side / 2) - 1e-9) + 1
    return np.linspace(side / 2, length - side / 2, count).tolist()
