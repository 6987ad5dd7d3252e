"""What a face is painted on: an oversampled picture, and the camera that looks at the head."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from pipeline.demo.curves import Points, ellipse
from pipeline.demo.faces import Identity, Shot

OVERSAMPLING = 2
_SUBPIXEL_BITS = 4
DEPTH = 0.6  # of the head, face units


class Canvas:
    """An oversampled picture and the camera that looks at the head."""

    def __init__(self, shot: Shot, width: int, height: int) -> None:
        self.shot = shot
        size = np.array([width, height]) * OVERSAMPLING
        self.scale = 0.41 * size.min()
        self.center = size * (0.5, 0.5) + shot.offset * size[0]
        self.rotation = _rotation(shot.yaw, shot.pitch, shot.roll)
        # seen from the side a head is as deep as it is wide: outlines are widened by what turning takes from them
        self.widening = float(np.hypot(np.cos(shot.yaw), 1.1 * np.sin(shot.yaw)) / np.cos(shot.yaw))
        self.pixels = (
            cv2.resize(shot.background.astype(np.float32), size.tolist(), interpolation=cv2.INTER_CUBIC)
            .clip(0, 255)
            .astype(np.uint8)
        )

    def project(self, points: Points) -> Points:
        """(N, 3) face units -> (N, 2) px of the oversampled picture."""
        return (points @ self.rotation.T)[:, :2] * self.scale + self.center

    def lift(self, points: Points, who: Identity, above: float = 0.0) -> Points:
        """(N, 2) on the face -> (N, 3) on the ellipsoid, or ``above`` it."""
        radius = 1 - (points[:, 0] / (who.width * 1.04)) ** 2 - (points[:, 1] / 1.12) ** 2
        return np.column_stack([points, DEPTH * np.sqrt(np.maximum(radius, 0.0)) + above])

    def outline(self, points: Points, depth: float = 0.0) -> Points:
        """(N, 2) face units around the head, at one depth -> (N, 2) px."""
        return self.project(np.column_stack([points * (self.widening, 1.0), np.full(len(points), depth)]))

    def fill(self, points: Points, color: np.ndarray, *, opacity: float = 1.0, soft: float = 0.0) -> None:
        """Fills a polygon of (N, 2) px; ``soft`` blurs its edge, in face units."""
        fixed = _fixed(points)
        if opacity == 1.0 and not soft:
            cv2.fillPoly(self.pixels, [fixed], np.round(color).tolist(), cv2.LINE_AA, _SUBPIXEL_BITS)
            return
        margin = int(3 * soft * self.scale) + 2
        limit = np.array(self.pixels.shape[1::-1])
        low = np.clip(np.floor(points.min(0)).astype(int) - margin, 0, limit)
        high = np.clip(np.ceil(points.max(0)).astype(int) + margin, 0, limit)
        if (high - low).min() <= 0:
            return
        mask = _filled((high - low)[::-1], points - low)
        if soft:
            mask = cv2.GaussianBlur(mask, (0, 0), max(soft * self.scale, 0.3))
        alpha = (mask * (opacity / 255)).astype(np.float32)[..., None]
        part = self.pixels[low[1] : high[1], low[0] : high[0]]
        part[:] = part + alpha * (np.asarray(color, np.float32) - part)

    def mask(self, points: Points) -> np.ndarray:
        """(H, W) uint8 of the oversampled picture: 255 within a polygon of (N, 2) px."""
        return _filled(self.pixels.shape[:2], points)

    def on_face(
        self, points: Points, who: Identity, color: np.ndarray, *, opacity: float = 1.0, soft: float = 0.0
    ) -> None:
        """Fills a polygon of (N, 2) face units on the head."""
        self.fill(self.project(self.lift(points, who)), color, opacity=opacity, soft=soft)

    def line(self, points: Points, color: np.ndarray, thickness: float) -> None:
        """Draws a polyline of (N, 2) px, ``thickness`` in face units."""
        cv2.polylines(
            self.pixels,
            [_fixed(points)],
            False,
            np.round(color).tolist(),
            max(round(thickness * self.scale), 1),
            cv2.LINE_AA,
            _SUBPIXEL_BITS,
        )

    def backdrop(self, who: Identity) -> None:
        """Shoulders and neck, which do not turn with the head."""
        x, y = self.center
        s = self.scale
        self.fill(ellipse(x, y + 2.3 * s, 1.75 * s, 1.1 * s), self.shot.clothes)
        neck = np.array([(-0.42, 0.5), (0.42, 0.5), (0.5, 1.5), (-0.5, 1.5)]) * s + (x, y)
        self.fill(neck, who.skin * 0.72)


def _rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    turn = np.array([(cy, 0, sy), (0, 1, 0), (-sy, 0, cy)])
    nod = np.array([(1, 0, 0), (0, cp, sp), (0, -sp, cp)])
    lean = np.array([(cr, -sr, 0), (sr, cr, 0), (0, 0, 1)])
    return lean @ nod @ turn


def _filled(shape: Sequence[int], points: Points) -> np.ndarray:
    """(H, W) uint8: 255 within a polygon, less along its edge."""
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [_fixed(points)], 255, cv2.LINE_AA, _SUBPIXEL_BITS)
    return mask


def _fixed(points: Points) -> np.ndarray:
    return np.round(points * (1 << _SUBPIXEL_BITS)).astype(np.int32)
