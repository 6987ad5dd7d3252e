"""Whether two crops show one photograph: the same picture, re-encoded, mirrored or cropped, not the same person."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.align import TEMPLATES, template_points

VIEW_PX = 16  # of the small picture that is compared first
ROWS, WIDTH_SHARE = (0.3, 0.9), 0.7  # of a crop: from above the eyes to below the mouth
DETAIL_PX = 64  # of the picture whose details are compared
DARK = 8  # grey level; darker pixels are beyond the edge of the photograph
MIN_SHARED = 0.3  # of the pixels; with fewer in common two crops are not compared
_ECC = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-4)


def _window(image: np.ndarray, template: str) -> np.ndarray:
    """The middle of a face, which lies symmetrically: mirroring it mirrors the face. It seldom has black corners."""
    height, width = image.shape
    axis = width / 2
    if template in TEMPLATES:
        axis = float(template_points(template, width)[:, 0].mean()) + 0.5
    half = int(WIDTH_SHARE * min(axis, width - axis))
    left = round(axis - half)
    return image[int(ROWS[0] * height) : int(ROWS[1] * height), left : left + 2 * half]


def view(image: np.ndarray, template: str) -> np.ndarray:
    """(VIEW_PX, VIEW_PX) uint8 of a (S, S) grey crop, for ``view_similarity``."""
    return cv2.resize(_window(image, template), (VIEW_PX, VIEW_PX), interpolation=cv2.INTER_AREA)


def view_similarity(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compares P pairs of views, the second ones as they are and mirrored.

    Returns:
        (P,) correlations, the larger one of the two.
        (P,) bool, whether that is the one with the mirrored view.
    """
    left = _standardised(first)
    plain, mirrored = (np.einsum("pd,pd->p", left, _standardised(other)) for other in (second, second[:, :, ::-1]))
    return np.maximum(plain, mirrored), mirrored > plain


def symmetric_part(views: np.ndarray) -> np.ndarray:
    """(N, D) float32: what N views have in common with their mirror images, standardised."""
    both = views.astype(np.float32)
    both += both[:, :, ::-1]
    return _standardised(both[:, :, : VIEW_PX // 2])


def _standardised(views: np.ndarray) -> np.ndarray:
    flat = views.reshape(len(views), -1).astype(np.float32)
    flat -= flat.mean(1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def detail(image: np.ndarray, template: str) -> np.ndarray:
    """(DETAIL_PX, DETAIL_PX) float32 of a (S, S) grey crop, for ``detail_similarity``."""
    return cv2.resize(_window(image, template), (DETAIL_PX, DETAIL_PX), interpolation=cv2.INTER_AREA).astype(np.float32)


def detail_similarity(first: np.ndarray, second: np.ndarray) -> float:
    """Correlation of the details of two pictures, after the second one was laid over the first."""
    warp = np.eye(2, 3, dtype=np.float32)
    shared = _photograph(first) & _photograph(second)
    try:
        _, warp = cv2.findTransformECC(first, second, warp, cv2.MOTION_AFFINE, _ECC, shared, 3)
    except cv2.error:  # nothing in common
        return 0.0
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = first.shape[::-1]
    laid = cv2.warpAffine(second, warp, size, flags=flags)
    inside = (_photograph(first) & cv2.warpAffine(_photograph(second), warp, size, flags=flags)) > 0
    if inside.mean() < MIN_SHARED:
        return 0.0
    return float(np.corrcoef(_details(first)[inside], _details(laid)[inside])[0, 1])


def _photograph(image: np.ndarray) -> np.ndarray:
    """(H, W) uint8, 1 well within the photograph: crops are black beyond its edge, which is no detail of it."""
    bright = cv2.morphologyEx((image > DARK).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    return cv2.erode(bright, np.ones((7, 7), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=1)


def _details(image: np.ndarray) -> np.ndarray:
    """What is finer than the shading and coarser than the noise."""
    return cv2.GaussianBlur(image, (0, 0), 0.8) - cv2.GaussianBlur(image, (0, 0), 2.5)
