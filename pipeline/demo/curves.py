"""Curves that faces are drawn with: (N, 2) points."""

from __future__ import annotations

import numpy as np

Points = np.ndarray
_SMOOTH = 64  # points


def ellipse(x: float, y: float, rx: float, ry: float) -> Points:
    """Around x, y, with these radii."""
    return arc(x, y, rx, ry, (0.0, 2 * np.pi))


def arc(x: float, y: float, rx: float, ry: float, span: tuple[float, float]) -> Points:
    """The part of an ellipse between two angles, radians, from the right, downwards."""
    t = np.linspace(*span, 28)
    return np.column_stack([x + rx * np.cos(t), y + ry * np.sin(t)])


def rounded(x: float, y: float, rx: float, ry: float) -> Points:
    """A rectangle with round corners."""
    t = np.linspace(0, 2 * np.pi, 28)
    return np.column_stack(
        [x + rx * np.sign(np.cos(t)) * np.abs(np.cos(t)) ** 0.4, y + ry * np.sign(np.sin(t)) * np.abs(np.sin(t)) ** 0.4]
    )


def band(x: np.ndarray, upper: np.ndarray, lower: np.ndarray) -> Points:
    """The area between two lines over the same (N,) x."""
    return np.concatenate([np.column_stack([x, upper]), np.column_stack([x, lower])[::-1]])


def smooth(corners: Points) -> Points:
    """A closed curve of ``_SMOOTH`` points through rounded corners."""
    steps = np.linspace(0, len(corners), _SMOOTH, endpoint=False)
    closed = np.concatenate([corners, corners[:1]])
    dense = np.column_stack([np.interp(steps, np.arange(len(closed)), closed[:, axis]) for axis in (0, 1)])
    kernel = np.hanning(9)[1:-1] / np.hanning(9).sum()
    padded = np.concatenate([dense[-3:], dense, dense[:3]])
    return np.column_stack([np.convolve(padded[:, axis], kernel, "valid") for axis in (0, 1)])
