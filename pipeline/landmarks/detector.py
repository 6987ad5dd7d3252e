"""Decodes the output of the face detector: anchors, boxes, non-maximum suppression. Points are complex, x + iy.

Source: Bazarevsky et al., BlazeFace: Sub-millisecond neural face detection on mobile GPUs, 2019.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from pipeline.landmarks.networks import DETECTOR_PX

MIN_SCORE = 0.5
MAX_OVERLAP = 0.3  # intersection over union of two boxes of different faces
_GRIDS = ((16, 2), (8, 6))  # cells a side, anchors a cell
_MIN_LOGIT = math.log(MIN_SCORE / (1 - MIN_SCORE))


@dataclasses.dataclass(frozen=True)
class Face:
    """A detected face. Eyes are left and right as the viewer sees them."""

    score: float  # 0 to 1
    centre: complex
    width: float
    height: float
    left_eye: complex
    right_eye: complex

    @property
    def side(self) -> float:
        """The longer side of the box."""
        return max(self.width, self.height)

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, width, height."""
        return self.centre.real - self.width / 2, self.centre.imag - self.height / 2, self.width, self.height

    def overlap(self, other: Face) -> float:
        """Intersection over union of the boxes."""
        apart = self.centre - other.centre
        across = (self.width + other.width) / 2 - abs(apart.real)
        down = (self.height + other.height) / 2 - abs(apart.imag)
        shared = min(max(across, 0), self.width, other.width) * min(max(down, 0), self.height, other.height)
        return shared / (self.width * self.height + other.width * other.height - shared)


def _anchors() -> np.ndarray:
    """(896, 2) centres of the anchors; the image is the unit square."""
    parts = []
    for cells, repeats in _GRIDS:
        centres = (np.arange(cells) + 0.5) / cells
        grid = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)  # row by row, x first
        parts.append(np.repeat(grid, repeats, axis=0))
    return np.concatenate(parts)


ANCHORS = _anchors()
# what is added to the raw numbers: to the centre, nothing to the size, and to the eyes
_OFFSETS = np.tile(ANCHORS * DETECTOR_PX, 4)
_OFFSETS[:, 2:4] = 0


def decode(boxes: np.ndarray, logits: np.ndarray) -> list[Face]:
    """Returns the faces of one image, in px of the detector's input, best first.

    Overlapping boxes are joined to their mean, weighted by the scores.

    Args:
        boxes: (896, 16) raw boxes and key points, px: centre, size, eyes, and four points that are not used. Relative
            to the anchor, but for the size.
        logits: (896,).
    """
    rows = np.flatnonzero(logits > _MIN_LOGIT)
    if not len(rows):
        return []
    found = boxes[rows, :8] + _OFFSETS[rows]
    scores = 1 / (1 + np.exp(-logits[rows].astype(np.float64)))
    half = found[:, 2:4] / 2
    low, high = found[:, :2] - half, found[:, :2] + half
    areas = found[:, 2] * found[:, 3]
    faces = []
    while len(found):
        best = int(scores.argmax())
        sides = np.minimum(high, high[best]) - np.maximum(low, low[best])
        shared = np.maximum(sides, 0).prod(1)
        joined = shared > MAX_OVERLAP * (areas + areas[best] - shared)
        joined[best] = True
        weights = scores * joined
        x, y, width, height, *eyes = (weights @ found / weights.sum()).tolist()
        if width > 0 and height > 0:  # and not NaN
            faces.append(
                Face(float(scores[best]), complex(x, y), width, height, complex(*eyes[:2]), complex(*eyes[2:]))
            )
        if joined.all():
            break
        found, scores, low, high, areas = (values[~joined] for values in (found, scores, low, high, areas))
    return faces


def distinct(faces: list[Face]) -> list[Face]:
    """Keeps the best of the faces that overlap, such as those that several views of an image show."""
    found: list[Face] = []
    for face in sorted(faces, key=lambda one: -one.score):
        if all(face.overlap(other) <= MAX_OVERLAP for other in found):
            found.append(face)
    return found
