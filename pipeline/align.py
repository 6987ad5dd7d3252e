"""Five-point alignment: named templates, a closed-form similarity fit and the bicubic warp; and the whole-image resize."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from PIL import Image

from pipeline.spec import Preprocessing
from shards.arguments import check_argument, check_whole, check_word

_TEMPLATE_PX = 112
_SEED = np.array([(30.2946, 51.6963), (65.5318, 51.5014), (48.0252, 71.7366), (33.5493, 92.3655), (62.7299, 92.2041)])

# The five points in a 112 px square crop. "seed" is the 96x112 template without the usual shift, as the released
# checkpoints expect: faces are 8 px left of the centre. "arcface" is centred.
# Source: Lai & Lam, APSIPA ASC 2021 (seed); Deng et al., ArcFace, CVPR 2019 (arcface).
TEMPLATES = {"seed": _SEED, "arcface": _SEED + (8.0, 0.0)}
FILTERS = {"opencv-cubic": cv2.INTER_CUBIC, "opencv-linear": cv2.INTER_LINEAR}  # of the warp, by their name in a spec

MIN_EYE_DISTANCE = 0.5  # source px; below it the points coincide
MAX_CROP_SHARE = 8  # sides of a crop and of its image; points that are no face's give a larger one
MIN_SCALE_GAP = 1e-6  # relative; below it the direct and the reflected fit are equally good: the points are on a line

BICUBIC_RADIUS = 2  # px from a bicubic sample to the farthest pixel it uses
MAX_PADDED_PX = 1 << 21  # copying a larger image takes longer than padding saves


def template_points(name: str, size: int) -> np.ndarray:
    """Returns the (5, 2) float64 points of template ``name`` in a square crop of ``size`` px.

    Raises:
        TypeError, ValueError: an argument of a wrong type, or an unknown template.
    """
    check_whole("size", size, 1)
    check_word("template", name, TEMPLATES)
    return TEMPLATES[name] * (size / _TEMPLATE_PX)


def crop_points(spec: Preprocessing, size: int) -> np.ndarray:
    """Returns the (5, 2) float64 points of a spec in a square crop of ``size`` px.

    Raises:
        TypeError, ValueError: an argument of a wrong type, or an unknown template.
    """
    check_whole("size", size, 1)
    own = spec.points is not None
    points = np.array(spec.points) * (size / spec.size) if own else template_points(spec.template, size)
    if not spec.margin:
        return points
    share = spec.margin / spec.size  # of the crop
    return points * (1 - share) + size * share / 2


def fit_crops(landmarks: np.ndarray, target: np.ndarray, spec: Preprocessing) -> tuple[np.ndarray, np.ndarray]:
    """Fits the transforms from source pixels to a crop that a spec asks for.

    Args:
        landmarks: (N, P, 2) source px.
        target: (P, 2) crop px.
        spec: its ``fit`` and ``stretch`` count.

    Returns:
        (N, 2, 3) float64 matrices and (N,) bool, as ``fit_similarity``.

    Source: Umeyama, TPAMI 1991 (forward).
    """
    if spec.stretch != 1:
        target = target / (spec.stretch, 1)
    matrices, good = fit_similarity(landmarks, target)
    if spec.fit != "inverse":
        matrices = _fit_other(_complex(landmarks), _complex(target), upright=spec.fit == "upright")
    if spec.stretch != 1:
        matrices[:, 0] *= spec.stretch
    return matrices, good


def _fit_other(landmarks: np.ndarray, target: np.ndarray, upright: bool) -> np.ndarray:
    """(N, 2, 3) transforms with the smallest error in crop px, or upright ones. Points are complex numbers."""
    with np.errstate(all="ignore"):
        centre, target_centre = landmarks.mean(-1), target.mean()
        q, p = landmarks - centre[:, None], target - target_centre
        products = (q.conj() * p).sum(-1)
        factor = products / (np.abs(q) ** 2).sum(-1)
        if upright:
            factor = (np.abs(p) ** 2).sum() / np.abs(products) + 0j
        shift = target_centre - factor * centre
    rows = np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])
    return np.ascontiguousarray(rows.transpose(2, 0, 1))


def _complex(points: np.ndarray) -> np.ndarray:
    """(..., 2) coordinates as (...) complex numbers."""
    found: np.ndarray = points[..., 0].astype(np.float64) + 1j * points[..., 1].astype(np.float64)
    return found


def fit_similarity(landmarks: np.ndarray, template: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fits similarity transforms from source pixels to the template, in the inverse direction.

    Unlike the usual forward fit, this minimises the error in source pixels (template -> landmarks) and inverts the
    solution. A reflection is used only if it fits better. With points as complex numbers, each fit is one scalar: the
    least-squares factor is ``sum(conj(p) q) / sum(|p|^2)``, with ``p q`` for the reflected fit, and the larger factor
    has the smaller error.

    Args:
        landmarks: (N, P, 2) source px.
        template: (P, 2) crop px.

    Returns:
        (N, 2, 3) float64 matrices, source px -> crop px.
        (N,) bool, False if the points coincide, lie on one line or are not finite; such a matrix is meaningless.

    Raises:
        TypeError: an argument has another type or shape.

    Source: Lai & Lam, APSIPA ASC 2021.
    """
    good = _is_numeric(template) and template.ndim == 2 and template.shape[1:] == (2,) and len(template) > 1
    check_argument(good, "template", template, "a (P, 2) array, as template_points(name, size)")
    good = _is_numeric(landmarks) and landmarks.ndim == 3 and landmarks.shape[1:] == template.shape
    check_argument(good, "landmarks", landmarks, f"a (N, {len(template)}, 2) array")
    target, source = _complex(template), _complex(landmarks)
    with np.errstate(all="ignore"):
        target_mean, source_mean = target.mean(), source.mean(-1, keepdims=True)
        p, q = target - target_mean, source - source_mean
        energy = (np.abs(p) ** 2).sum()
        direct, reflected = (p.conj() * q).sum(-1) / energy, (p * q).sum(-1) / energy
        direct_scale, reflected_scale = np.abs(direct), np.abs(reflected)
        scale = np.maximum(direct_scale, reflected_scale)
        good = scale * np.abs(target[1] - target[0]) >= MIN_EYE_DISTANCE
        good &= np.abs(direct_scale - reflected_scale) > MIN_SCALE_GAP * scale
        mirrored = reflected_scale > direct_scale
        factor = np.where(mirrored, 1 / reflected.conj(), 1 / direct)
        # crop = factor * z + shift, with z conjugated if mirrored
        shift = target_mean - factor * np.where(mirrored, source_mean[..., 0].conj(), source_mean[..., 0])
    sign = np.where(mirrored, -1.0, 1.0)
    matrices = np.empty((len(source), 2, 3))
    matrices[:, 0, 0], matrices[:, 0, 1], matrices[:, 0, 2] = factor.real, -sign * factor.imag, shift.real
    matrices[:, 1, 0], matrices[:, 1, 1], matrices[:, 1, 2] = factor.imag, sign * factor.real, shift.imag
    return matrices, good


def _is_numeric(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiu"


def is_far_too_large(matrix: np.ndarray, size: int, width: int, height: int) -> bool:
    """Returns True if a crop of ``size`` px shows an image of ``width`` x ``height`` px as a speck: a point is wild."""
    (a, b), (c, d) = matrix[:, :2].tolist()
    return size > MAX_CROP_SHARE * max(width, height) * math.sqrt(abs(a * d - b * c))


def eye_distances(landmarks: np.ndarray) -> np.ndarray:
    """Returns the (N,) distances between the eyes of (N, 5, 2) landmarks, in the same unit."""
    return np.linalg.norm(landmarks[:, 1].astype(np.float64) - landmarks[:, 0], axis=-1)


def warp(image: np.ndarray, matrix: np.ndarray, size: int, filter: str = "opencv-cubic") -> np.ndarray:
    """Warps an image with a filter of OpenCV; pixels outside the image are black.

    If the crop extends beyond the image, the image is padded first, because OpenCV's bounds checks are slow.

    Args:
        image: (H, W, 3) or (H, W) uint8, any channel order.
        matrix: (2, 3), source px -> crop px.
        filter: a key of ``FILTERS``; ``opencv-cubic`` is bicubic with a = -0.75.

    Returns:
        (size, size, 3) or (size, size) uint8, in the channel order of ``image``.

    Raises:
        TypeError, ValueError: an argument of another type, shape or value.
    """
    good = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim in (2, 3) and image.size > 0
    good = good and image.shape[2:] in ((), (3,))
    check_argument(good, "image", image, "a (H, W, 3) or (H, W) array of uint8")
    good = _is_numeric(matrix) and matrix.shape == (2, 3)
    check_argument(good, "matrix", matrix, "a (2, 3) array, as fit_similarity returns")
    check_whole("size", size, 1)
    check_word("filter", filter, FILTERS)
    left, top, right, bottom = _overhang(image.shape[1], image.shape[0], matrix, size)
    padded = (image.shape[1] + left + right) * (image.shape[0] + top + bottom)
    if left + top + right + bottom and padded <= MAX_PADDED_PX:
        image = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=0)
        (a, b, x), (c, d, y) = matrix.tolist()  # a product by NumPy takes longer, and its last bits depend on the CPU
        matrix = np.array([[a, b, x - (a * left + b * top)], [c, d, y - (c * left + d * top)]])
    return cv2.warpAffine(
        image, matrix, (size, size), flags=FILTERS[filter], borderMode=cv2.BORDER_CONSTANT, borderValue=0
    )


def _overhang(width: int, height: int, matrix: np.ndarray, size: int) -> tuple[int, int, int, int]:
    """Returns how far the pixels of a crop extend beyond the image, px: left, top, right, bottom."""
    (a, b, x), (c, d, y) = matrix.tolist()
    determinant = a * d - b * c
    if not determinant or not math.isfinite(determinant + x + y):
        raise ValueError(f"matrix is {matrix.tolist()}, expected one that has an inverse")
    scale = 1 / determinant
    corners = [(u - x, v - y) for u in (0, size - 1) for v in (0, size - 1)]
    across = [(d * u - b * v) * scale for u, v in corners]
    down = [(a * v - c * u) * scale for u, v in corners]
    return (
        max(math.ceil(BICUBIC_RADIUS - min(across)), 0),
        max(math.ceil(BICUBIC_RADIUS - min(down)), 0),
        max(math.ceil(max(across) + BICUBIC_RADIUS) + 1 - width, 0),
        max(math.ceil(max(down) + BICUBIC_RADIUS) + 1 - height, 0),
    )


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes a (H, W, 3) uint8 image to (size, size, 3) with Pillow's bicubic filter, ignoring its aspect ratio."""
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))
