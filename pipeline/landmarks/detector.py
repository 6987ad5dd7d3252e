"""Decodes the output of the face detector: anchors, boxes, non-maximum suppression. Pure functions.

Source: Bazarevsky et al., BlazeFace: Sub-millisecond neural face detection on mobile GPUs, 2019.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from pipeline.landmarks.networks import DETECTOR_PX

MIN_SCORE = 0.5
MAX_OVERLAP = 0.3  # intersection over union of two boxes of different faces
# rows of ``Face.geometry``: centre and size of the box, eyes (left and right as the viewer sees them)
CENTRE, SIZE, LEFT_EYE, RIGHT_EYE = range(4)
_POINTS = 8  # centre, size, and six key points: eyes, nose, mouth, ears
_GRIDS = ((16, 2), (8, 6))  # cells a side, anchors a cell


@dataclasses.dataclass(frozen=True, kw_only=True)
class Face:
    """A detected face.

    Attributes:
        score: 0 to 1.
        geometry: (8, 2) float64: centre and size of the box, left and right eye as the viewer sees them, nose, mouth,
            ears.
    """

    score: float
    geometry: np.ndarray

    @property
    def side(self) -> float:
        """The longer side of the box."""
        return float(self.geometry[SIZE].max())

    @property
    def area(self) -> float:
        """Of the box."""
        return float(self.geometry[SIZE].prod())

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, width, height."""
        left, top = (self.geometry[CENTRE] - self.geometry[SIZE] / 2).tolist()
        width, height = self.geometry[SIZE].tolist()
        return left, top, width, height


def _anchors() -> np.ndarray:
    """(896, 2) centres of the anchors; the image is the unit square."""
    parts = []
    for cells, repeats in _GRIDS:
        centres = (np.arange(cells) + 0.5) / cells
        grid = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)  # row by row, x first
        parts.append(np.repeat(grid, repeats, axis=0))
    return np.concatenate(parts)


ANCHORS = _anchors()


def decode(boxes: np.ndarray, logits: np.ndarray) -> list[Face]:
    """Returns the faces of one image, in px of the detector's input, best first.

    Overlapping boxes are joined to their mean, weighted by the scores.

    Args:
        boxes: (896, 16) raw boxes and key points, px relative to the anchor (sizes are absolute).
        logits: (896,).
    """
    rows = np.flatnonzero(logits > np.log(MIN_SCORE / (1 - MIN_SCORE)))
    if not len(rows):
        return []
    rows = rows[np.argsort(-logits[rows], kind="stable")]
    scores = 1 / (1 + np.exp(-logits[rows].astype(np.float64)))
    geometry = boxes[rows].astype(np.float64).reshape(-1, _POINTS, 2)
    size = geometry[:, SIZE].copy()
    geometry += ANCHORS[rows, None] * DETECTOR_PX
    geometry[:, SIZE] = size
    good = (size > 0).all(1) & np.isfinite(geometry).all((1, 2))
    geometry, scores = geometry[good], scores[good]
    faces = []
    while len(scores):
        joined = overlaps(geometry[0], geometry) > MAX_OVERLAP  # at least with itself
        weights = scores[joined] / scores[joined].sum()
        faces.append(Face(score=float(scores[0]), geometry=np.tensordot(weights, geometry[joined], axes=1)))
        geometry, scores = geometry[~joined], scores[~joined]
    return faces


def overlaps(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of a box with (N) boxes, given as (8, 2) and (N, 8, 2) geometries."""
    low = np.maximum(one[CENTRE] - one[SIZE] / 2, others[:, CENTRE] - others[:, SIZE] / 2)
    high = np.minimum(one[CENTRE] + one[SIZE] / 2, others[:, CENTRE] + others[:, SIZE] / 2)
    shared = np.clip(high - low, 0, None).prod(1)
    return shared / (one[SIZE].prod() + others[:, SIZE].prod(1) - shared)


def distinct(faces: list[Face]) -> list[Face]:
    """Keeps the best of the faces that overlap, such as those that several views of an image show."""
    found: list[Face] = []
    for face in sorted(faces, key=lambda one: -one.score):
        if not found or overlaps(face.geometry, np.stack([one.geometry for one in found])).max() <= MAX_OVERLAP:
            found.append(face)
    return found
