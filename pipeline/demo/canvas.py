"""Drawing surface for a face: an oversampled picture, a camera, and curves."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from pipeline.demo.faces import Conditions, Identity

Points = np.ndarray  # (N, 2) or (N, 3) float64

OVERSAMPLING = 2
DEPTH = 0.6  # of the head, face units
SUBPIXEL_BITS = 4
ARC_POINTS = 28
SMOOTH_POINTS = 64


class Canvas:
    """An oversampled picture of a head and the camera that projects it."""

    def __init__(self, face: Identity, conditions: Conditions, width: int, height: int) -> None:
        self.conditions, self._width = conditions, face.width
        size = np.array([width, height]) * OVERSAMPLING
        self.scale = 0.41 * size.min()
        self.center = size * (0.5, 0.5) + conditions.offset * size[0]
        self._rotation = _rotation(conditions.yaw, conditions.pitch, conditions.roll)
        # rotation narrows a flat outline but not a head, which is as deep as it is wide: widen outlines to compensate
        self._widening = float(np.hypot(np.cos(conditions.yaw), 1.1 * np.sin(conditions.yaw)) / np.cos(conditions.yaw))
        background = cv2.resize(conditions.background.astype(np.float32), size.tolist(), interpolation=cv2.INTER_CUBIC)
        self.pixels = background.clip(0, 255).astype(np.uint8)

    def project(self, points: Points) -> Points:
        """Projects (N, 3) face units to (N, 2) px of the oversampled picture."""
        return (points @ self._rotation.T)[:, :2] * self.scale + self.center

    def flat(self, points: Points, depth: float) -> Points:
        """Projects (N, 2) face units at one depth to (N, 2) px."""
        return self.project(np.column_stack([points, np.full(len(points), depth)]))

    def outline(self, points: Points, depth: float = 0.0) -> Points:
        """Projects an outline of the head, (N, 2) face units at one depth, to (N, 2) px."""
        return self.flat(points * (self._widening, 1.0), depth)

    def surface(self, points: Points) -> Points:
        """Projects (N, 2) face units on the head's ellipsoid to (N, 2) px."""
        squared_depth = 1 - (points[:, 0] / (self._width * 1.04)) ** 2 - (points[:, 1] / 1.12) ** 2
        return self.project(np.column_stack([points, DEPTH * np.sqrt(np.maximum(squared_depth, 0.0))]))

    def fill(self, points: Points, color: np.ndarray, *, opacity: float = 1.0, soft: float = 0.0) -> None:
        """Fills a polygon of (N, 2) px, or K ones of (K, N, 2), with an RGB colour.

        ``soft`` is the blur of the edges, face units.
        """
        points = points.reshape(-1, *points.shape[-2:])
        if opacity == 1.0 and not soft:
            _fill(self.pixels, points, np.round(color).tolist())
            return
        part, low = self.around(points, int(3 * soft * self.scale) + 2)
        if not part.size:
            return
        mask = polygon_mask(part.shape[:2], points - low)
        if soft:
            mask = cv2.GaussianBlur(mask, (0, 0), max(soft * self.scale, 0.3))
        alpha = (mask * (opacity / 255)).astype(np.float32)[..., None]
        part[:] = part + alpha * (np.asarray(color, np.float32) - part)

    def around(self, points: Points, margin: int) -> tuple[np.ndarray, np.ndarray]:
        """The part of the picture around (K, N, 2) px, and its first corner (x, y), px."""
        limit = np.array(self.pixels.shape[1::-1])
        low = np.clip(np.floor(points.min((0, 1))).astype(int) - margin, 0, limit)
        high = np.clip(np.ceil(points.max((0, 1))).astype(int) + margin, low, limit)
        return self.pixels[low[1] : high[1], low[0] : high[0]], low

    def on_face(self, points: Points, color: np.ndarray, *, opacity: float = 1.0, soft: float = 0.0) -> None:
        """Fills polygons in face units on the head; arguments as for ``fill``."""
        flat = self.surface(points.reshape(-1, 2)).reshape(points.shape)
        self.fill(flat, color, opacity=opacity, soft=soft)

    def line(self, points: Points, color: np.ndarray, thickness: float) -> None:
        """Draws a polyline through (N, 2) px; ``thickness`` is in face units."""
        color, width = np.round(color).tolist(), max(round(thickness * self.scale), 1)
        cv2.polylines(self.pixels, [_fixed_point(points)], False, color, width, cv2.LINE_AA, SUBPIXEL_BITS)


def _rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    yaw_matrix = np.array([(cy, 0, sy), (0, 1, 0), (-sy, 0, cy)])
    pitch_matrix = np.array([(1, 0, 0), (0, cp, sp), (0, -sp, cp)])
    roll_matrix = np.array([(cr, -sr, 0), (sr, cr, 0), (0, 0, 1)])
    return roll_matrix @ pitch_matrix @ yaw_matrix


def polygon_mask(shape: Sequence[int], points: Points) -> np.ndarray:
    """(H, W) uint8 mask: 255 inside polygons of (K, N, 2) px, antialiased."""
    mask = np.zeros(shape, np.uint8)
    _fill(mask, points, 255)
    return mask


def _fill(pixels: np.ndarray, points: Points, color: cv2.typing.Scalar | int) -> None:
    for polygon in _fixed_point(points):  # one by one: where polygons of one call overlap, there is a hole
        cv2.fillPoly(pixels, [polygon], color, cv2.LINE_AA, SUBPIXEL_BITS)


def _fixed_point(points: Points) -> np.ndarray:
    """OpenCV's fixed-point coordinates of (N, 2) px."""
    return np.round(points * (1 << SUBPIXEL_BITS)).astype(np.int32)


def ellipse(x: float, y: float, rx: float, ry: float, span: tuple[float, float] = (0.0, 2 * np.pi)) -> Points:
    """(N, 2) ellipse about (x, y), or its part between two angles, radians clockwise from the right."""
    t = np.linspace(*span, ARC_POINTS)
    return np.column_stack([x + rx * np.cos(t), y + ry * np.sin(t)])


def rounded_box(x: float, y: float, rx: float, ry: float) -> Points:
    """(N, 2) rectangle with round corners; ``rx``, ``ry`` are half its width and height."""
    circle = ellipse(0, 0, 1, 1)
    return np.sign(circle) * np.abs(circle) ** 0.4 * (rx, ry) + (x, y)


def band(x: np.ndarray, upper: np.ndarray, lower: np.ndarray) -> Points:
    """(2N, 2) outline of the area between two curves over the same (N,) ``x``."""
    return np.concatenate([np.column_stack([x, upper]), np.column_stack([x, lower])[::-1]])


def smooth(corners: Points) -> Points:
    """Rounds the corners of a closed polygon; returns (SMOOTH_POINTS, 2)."""
    steps = np.linspace(0, len(corners), SMOOTH_POINTS, endpoint=False)
    closed = np.concatenate([corners, corners[:1]])
    dense = np.column_stack([np.interp(steps, np.arange(len(closed)), closed[:, axis]) for axis in (0, 1)])
    kernel = np.hanning(9)[1:-1] / np.hanning(9).sum()
    padded = np.concatenate([dense[-3:], dense, dense[:3]])
    return np.column_stack([np.convolve(padded[:, axis], kernel, "valid") for axis in (0, 1)])
