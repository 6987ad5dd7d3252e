"""Two networks that need no model: they find painted faces by the colours of their points, and nothing else.

Faces are white squares on a dark ground, with five coloured dots; a red square is not a face, which only the landmark network
notices.
"""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.landmarks.detector import ANCHORS
from pipeline.landmarks.faces import FIVE_POINTS
from pipeline.landmarks.networks import DETECTOR_PX, FACE_POINTS

GROUND, WHITE, RED = (40, 40, 40), (255, 255, 255), (0, 0, 255)
# BGR of left eye, right eye, nose, left and right mouth corner
COLOURS = ((255, 0, 0), (0, 255, 0), (255, 255, 0), (255, 0, 255), (0, 255, 255))
POINTS = np.array([(0.3, 0.35), (0.7, 0.35), (0.5, 0.55), (0.35, 0.75), (0.65, 0.75)])  # in the square
DOT = 0.06  # radius
MIN_SIDE = 0.15  # of the detector's view


def scene(width, height, faces, turn=0.0):
    """Paints faces; returns the image and the (n, 5, 2) points.

    Args:
        faces: (x, y, side) of squares, or (x, y, side, colour).
        turn: degrees, clockwise, of each face about its centre.
    """
    image = np.full((height, width, 3), GROUND, np.uint8)
    points = []
    for x, y, side, *colour in faces:
        centre = np.array([x + side / 2, y + side / 2])
        angle = np.radians(turn)
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        corners = (np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) - 0.5) * side @ rotation.T + centre
        _polygon(image, corners, colour[0] if colour else WHITE)
        found = (POINTS - 0.5) * side @ rotation.T + centre
        for point, one in zip(found, COLOURS, strict=True):
            cv2.circle(image, _fixed(point), int(DOT * side * 16), one, -1, cv2.LINE_AA, 4)
        points.append(found)
    return image, np.array(points)


def _polygon(image, corners, colour):
    cv2.fillPoly(image, [np.round((corners - 0.5) * 16).astype(np.int32)], colour, cv2.LINE_AA, 4)


def _fixed(point):
    return tuple(np.round((point - 0.5) * 16).astype(int).tolist())


class StandIn:
    """See ``Networks``."""

    def __init__(self, model=None):
        self.model = model
        self.detections = self.meshes = 0

    def detect(self, image):
        assert image.shape[:2] == (DETECTOR_PX, DETECTOR_PX)
        self.detections += 1
        boxes, logits = np.zeros((len(ANCHORS), 16), np.float32), np.full(len(ANCHORS), -9, np.float32)
        if image.ndim == 2:
            return boxes, logits
        bright = (cv2.GaussianBlur(image, (0, 0), 0.7).max(axis=2) > 120).astype(np.uint8)
        for left, top, width, height, _ in cv2.connectedComponentsWithStats(bright)[2][1:].tolist():
            whole = left > 0 and top > 0 and left + width < DETECTOR_PX and top + height < DETECTOR_PX
            if not whole or max(width, height) < MIN_SIDE * DETECTOR_PX:
                continue
            centre = np.array([left + width / 2, top + height / 2])
            eyes = [_dot(image[top : top + height, left : left + width], colour) for colour in COLOURS[:2]]
            eyes = [centre if eye is None else eye + (left, top) for eye in eyes]
            anchor = int(np.abs(ANCHORS * DETECTOR_PX - centre).sum(1).argmin())
            row = np.array([centre, (width, height), *eyes, *[centre] * 4])
            row[[0, 2, 3, 4, 5, 6, 7]] -= ANCHORS[anchor] * DETECTOR_PX
            boxes[anchor], logits[anchor] = row.ravel(), 2 + max(width, height) / DETECTOR_PX
        return boxes, logits

    def landmarks(self, image):
        self.meshes += 1
        points = np.zeros((FACE_POINTS, 3), np.float32)
        found = [_dot(image, colour) for colour in COLOURS]
        red = (np.abs(image.astype(int) - RED).sum(2) < 60).mean() > 0.1
        if red or any(point is None for point in found):
            return points, -5.0
        points[list(FIVE_POINTS), :2] = found
        points[[33, 263], :2] = found[:2]
        points[[10, 152], :2] = (found[0] + found[1]) / 2, (found[3] + found[4]) / 2
        return points, 5.0


def _dot(image, colour):
    """Centre of the pixels of a colour, continuous px; None if there are none."""
    weights = np.clip(150 - np.abs(image.astype(float) - colour).sum(2), 0, None)
    if weights.max() == 0:
        return None
    rows, columns = np.indices(weights.shape)
    return np.array([(columns * weights).sum(), (rows * weights).sum()]) / weights.sum() + 0.5
