"""Checks by the geometry of the points whether a landmark table has them in the expected order."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from pipeline.align import TEMPLATES
from shards.messages import print_stderr

MAX_ROWS, MIN_ROWS = 2000, 8  # looked at, spread over the table
# Residuals are fractions of the variance of the points that the similarity fit leaves, medians over the rows. Frontal
# faces have about 0.02, half profiles 0.1; mirrored points have 0.9 if the fit may not mirror.
GOOD_RESIDUAL, BAD_RESIDUAL = 0.2, 0.5
MIN_GAIN = 2  # by which another order must fit better
_NAMES = ("left eye", "right eye", "nose", "left mouth corner", "right mouth corner")
_EXPECTED = f"{', '.join(_NAMES)}, as the viewer sees them, x before y"
_PERMUTATIONS = np.array(list(itertools.permutations(range(5))))  # row 0: as they are
_KNOWN = {  # orders that people meet
    (1, 0, 2, 4, 3): "mirrored, with the subject's left first: ",
    (3, 4, 2, 0, 1): "mouth first: ",
}
_READINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # how ten numbers may be five points
    "": lambda numbers: numbers.reshape(-1, 5, 2),
    "y before x": lambda numbers: numbers.reshape(-1, 5, 2)[..., ::-1],
    "x1..x5,y1..y5": lambda numbers: numbers.reshape(-1, 2, 5).swapaxes(1, 2),
    "y1..y5,x1..x5": lambda numbers: numbers.reshape(-1, 2, 5)[:, ::-1].swapaxes(1, 2),
}


def order_warning(points: np.ndarray) -> str | None:
    """Describes the order of (N, 10) points if it is not the expected one; None if they fit a face, or are few."""
    rows = _sample(points)
    if len(rows) < MIN_ROWS:
        return None
    expected, upright = (float(residuals[0]) for residuals in _residuals(_READINGS[""](rows), _PERMUTATIONS[:1]))
    if expected < GOOD_RESIDUAL and upright < BAD_RESIDUAL:
        return None
    found = {reading: _residuals(read(rows), _PERMUTATIONS) for reading, read in _READINGS.items()}
    reading, permutation = min(
        ((reading, place) for reading in found for place in range(len(_PERMUTATIONS))),
        key=lambda one: found[one[0]][1][one[1]],
    )
    best = float(found[reading][1][permutation])
    other = _described(reading, _PERMUTATIONS[permutation])
    if best < GOOD_RESIDUAL and best * MIN_GAIN < expected:
        return (
            f"most points fit a face in another order: {other} (median residual {best:.2f}, in the expected order"
            f" {expected:.2f}), so crops will be mirrored or skewed; expected {_EXPECTED}"
        )
    if expected < GOOD_RESIDUAL:
        return (
            f"most faces are turned by more than 45 degrees; if the images are upright, the points are in another order:"
            f" {other}; expected {_EXPECTED}"
        )
    if expected > BAD_RESIDUAL:
        return f"most points fit no face in any order (median residual {expected:.2f}); expected {_EXPECTED}"
    return None


def report_order(points: np.ndarray, names: str) -> None:
    """Prints ``order_warning`` to stderr, with the names of the files that the points come from."""
    if warning := order_warning(points):
        print_stderr(f"{names}: {warning}")


def _sample(points: np.ndarray) -> np.ndarray:
    """(n, 10) float64 rows with ten finite numbers that do not coincide."""
    points = points[:: max(len(points) // MAX_ROWS, 1)].astype(np.float64)
    points = points[np.isfinite(points).all(1)]
    return points[np.ptp(points.reshape(-1, 5, 2), axis=1).min(1) > 0]


def _residuals(points: np.ndarray, permutations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median residuals of the similarity fit, which does not mirror, for each of (K, 5) permutations of (n, 5, 2) points.

    Returns:
        (K,) of the best fit at any angle.
        (K,) of upright faces; larger for faces that are turned.
    """
    template = TEMPLATES["arcface"] @ (1, 1j)
    template = template - template.mean()
    source = points @ (1, 1j)
    source = source - source.mean(1, keepdims=True)
    energy = (np.abs(template) ** 2).sum() * (np.abs(source) ** 2).sum(1, keepdims=True)
    # product[n, k] = sum_i conj(template[i]) * source[n, permutation[k, i]]
    weights = np.zeros((5, len(permutations)), complex)
    np.put_along_axis(weights, permutations.T, np.broadcast_to(template.conj()[:, None], weights.shape), axis=0)
    product = source @ weights
    angled = 1 - np.abs(product) ** 2 / energy
    upright = 1 - np.maximum(product.real, 0) ** 2 / energy
    return np.median(angled, axis=0), np.median(upright, axis=0)


def _described(reading: str, permutation: np.ndarray) -> str:
    order = tuple(permutation.tolist())
    names = ", ".join(_NAMES[point] for point in np.argsort(permutation).tolist())
    return "; ".join(filter(None, [reading, _KNOWN.get(order, "") + names if order != (0, 1, 2, 3, 4) else ""]))
