"""Five-point alignment: a similarity fit in closed form, named templates, the bicubic warp."""

from __future__ import annotations

import math

import cv2
import numpy as np

_TEMPLATE_SIDE = 112
_SEED = np.array([(30.2946, 51.6963), (65.5318, 51.5014), (48.0252, 71.7366), (33.5493, 92.3655), (62.7299, 92.2041)])

# The five points in a 112 px square crop. "seed" is the 96x112 template used unshifted, as the released
# checkpoints need it: faces sit 8 px left of the centre. "arcface" is the centred one.
# Source: Lai & Lam, ICIP 2021 (seed); Deng et al., ArcFace, CVPR 2019 (arcface).
TEMPLATES = {"seed": _SEED, "arcface": _SEED + (8.0, 0.0)}

_LEAST_EYE_DISTANCE = 0.5  # px; below it five points are one
_TIE = 1e-6

_REACH = 2  # px that a bicubic sample reaches
_MOST_PADDED = 1 << 21  # px; to copy more takes longer than it saves


def template_points(name: str, size: int) -> np.ndarray:
    """The (5, 2) float64 points of template ``name`` in a square crop of ``size`` px."""
    return TEMPLATES[name] * (size / _TEMPLATE_SIDE)


def fit_similarity(landmarks: np.ndarray, template: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Similarity transforms from source pixels to the template, fitted in the inverse direction.

    The error is minimised in source pixels (template -> landmarks) and the solution inverted, which is not
    the usual forward fit. A reflection is taken only where it fits better. Points as complex numbers make
    both fits one scalar each: the least-squares factor is ``sum(conj(p) q) / sum(|p|^2)``, with ``p q`` for
    the reflected one, and the larger factor has the smaller error.

    Args:
        landmarks: (N, 5, 2) source px.
        template: (5, 2) crop px.

    Returns:
        (N, 2, 3) float64 matrices, source px -> crop px; (N,) bool, False where the points coincide, lie on
        one line or are not finite, and the matrix means nothing.

    Source: Lai & Lam, ICIP 2021, which aligns this way.
    """
    target = template[:, 0] + 1j * template[:, 1]
    source = np.asarray(landmarks, np.float64)[..., 0] + 1j * np.asarray(landmarks, np.float64)[..., 1]
    with np.errstate(all="ignore"):
        target_mean, source_mean = target.mean(), source.mean(-1, keepdims=True)
        p, q = target - target_mean, source - source_mean
        energy = (np.abs(p) ** 2).sum()
        direct, reflected = (p.conj() * q).sum(-1) / energy, (p * q).sum(-1) / energy
        direct_scale, reflected_scale = np.abs(direct), np.abs(reflected)
        scale = np.maximum(direct_scale, reflected_scale)
        good = scale * np.abs(target[1] - target[0]) >= _LEAST_EYE_DISTANCE
        good &= np.abs(direct_scale - reflected_scale) > _TIE * scale
        mirrored = reflected_scale > direct_scale
        factor = np.where(mirrored, 1 / reflected.conj(), 1 / direct)
        # crop = factor * z + shift, with z conjugated where mirrored
        shift = target_mean - factor * np.where(mirrored, source_mean[..., 0].conj(), source_mean[..., 0])
    sign = np.where(mirrored, -1.0, 1.0)
    matrices = np.empty((len(source), 2, 3))
    matrices[:, 0, 0], matrices[:, 0, 1], matrices[:, 0, 2] = factor.real, -sign * factor.imag, shift.real
    matrices[:, 1, 0], matrices[:, 1, 1], matrices[:, 1, 2] = factor.imag, sign * factor.real, shift.imag
    return matrices, good


def eye_distances(landmarks: np.ndarray) -> np.ndarray:
    """(N,) distances between the eyes of (N, 5, 2) landmarks, in their unit."""
    return np.linalg.norm(landmarks[:, 1].astype(np.float64) - landmarks[:, 0], axis=-1)


def warp(image: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """The (size, size, 3) uint8 crop of a (H, W, 3) uint8 image, or (size, size) of (H, W), under a (2, 3) source-to-crop matrix.

    OpenCV's bicubic (a = -0.75), black outside the image; the channel order is kept. Where a crop reaches beyond its
    image, the black is laid around the image first: OpenCV is slow wherever it has to ask what lies inside.
    """
    left, top, right, bottom = _overhang(image.shape[1], image.shape[0], matrix, size)
    around = (image.shape[1] + left + right) * (image.shape[0] + top + bottom)
    if left + top + right + bottom and around <= _MOST_PADDED:
        image = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=0)
        matrix = np.column_stack([matrix[:, :2], matrix[:, 2] - matrix[:, :2] @ (left, top)])
    return cv2.warpAffine(
        image, matrix, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT, borderValue=0
    )


def _overhang(width: int, height: int, matrix: np.ndarray, size: int) -> tuple[int, int, int, int]:
    """How far, px, the pixels that a crop is made of reach beyond its image: on the left, above, on the right, below."""
    (a, b, x), (c, d, y) = matrix.tolist()
    scale = 1 / (a * d - b * c)
    corners = [(u - x, v - y) for u in (0, size - 1) for v in (0, size - 1)]
    across = [(d * u - b * v) * scale for u, v in corners]
    down = [(a * v - c * u) * scale for u, v in corners]
    return (
        max(math.ceil(_REACH - min(across)), 0),
        max(math.ceil(_REACH - min(down)), 0),
        max(math.ceil(max(across) + _REACH) + 1 - width, 0),
        max(math.ceil(max(down) + _REACH) + 1 - height, 0),
    )
