"""The similarity fit and the warp against the reference, naive implementations and their invariances."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.align import TEMPLATES, fit_similarity, template_points, warp

SEED = template_points("seed", 128)


def apply(matrix, points):
    return points @ matrix[:, :2].T + matrix[:, 2]


def test_matrices_equal_the_reference(golden):
    figures = golden("align")
    matrices, good = fit_similarity(figures["landmarks"], SEED)
    assert len(matrices) == 24
    assert good.all()
    assert np.abs(matrices - figures["matrix"]).max() < 1e-3


def naive_inverse_fit(landmarks, template, reflected):
    """Solves the 10x4 least-squares system template -> landmarks and inverts the result."""
    p = template * (1, -1) if reflected else template
    rows = [((x, -y, 1, 0), (y, x, 0, 1)) for x, y in p]
    solution, *_ = np.linalg.lstsq(np.array(rows).reshape(10, 4), landmarks.ravel(), rcond=None)
    a, b, tx, ty = solution
    forward = np.array([(a, -b, tx), (b, a, ty), (0, 0, 1)])
    if reflected:
        forward = forward @ np.diag((1.0, -1.0, 1.0))
    error = np.linalg.norm(apply(forward[:2], template) - landmarks)
    return np.linalg.inv(forward)[:2], error


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.booleans())
def test_closed_form_equals_least_squares(seed, mirrored):
    rng = np.random.default_rng(seed)
    landmarks = SEED * (-1, 1) if mirrored else SEED
    landmarks = landmarks * rng.uniform(0.1, 8) + rng.uniform(-50, 300, 2) + rng.normal(0, 3, (5, 2))
    matrices, good = fit_similarity(landmarks[None], SEED)
    direct, reflected = (naive_inverse_fit(landmarks, SEED, flag) for flag in (False, True))
    expected = min(direct, reflected, key=lambda solution: solution[1])[0]
    if good[0]:
        np.testing.assert_allclose(matrices[0], expected, atol=1e-6 * np.abs(expected).max())


@given(st.floats(-3, 3), st.floats(0.05, 30), st.floats(-500, 500), st.floats(-500, 500))
def test_an_exact_similarity_is_recovered(angle, scale, dx, dy):
    rotation = scale * np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    landmarks = SEED @ rotation.T + (dx, dy)
    matrices, good = fit_similarity(landmarks[None], SEED)
    assert good[0]
    np.testing.assert_allclose(apply(matrices[0], landmarks), SEED, atol=1e-6)


def test_swapped_sides_give_a_reflection():
    landmarks = SEED * (-1, 1) + (200, 0)
    matrix = fit_similarity(landmarks[None], SEED)[0][0]
    assert np.linalg.det(matrix[:, :2]) < 0
    np.testing.assert_allclose(apply(matrix, landmarks), SEED, atol=1e-9)


@pytest.mark.parametrize(
    "landmarks",
    [
        np.zeros((5, 2)),
        np.full((5, 2), 40.0) + np.random.default_rng(0).normal(0, 1e-3, (5, 2)),
        np.column_stack([np.arange(5) * 10.0, np.arange(5) * 4.0]),
        np.full((5, 2), np.nan),
    ],
    ids=["zero", "coincident", "collinear", "nan"],
)
def test_degenerate_points_are_detected(landmarks):
    assert not fit_similarity(landmarks[None], SEED)[1][0]


def test_templates():
    np.testing.assert_allclose(TEMPLATES["arcface"] - TEMPLATES["seed"], np.tile((8.0, 0.0), (5, 1)))
    assert SEED[:2, 0].mean() == pytest.approx(54.8, abs=0.05)  # faces of the seed template are left of the centre
    assert template_points("arcface", 112)[:2, 0].mean() == pytest.approx(55.9, abs=0.05)


def naive_bicubic(image, matrix, size):
    """Keys' cubic with a = -0.75, black outside, in float64."""
    inverse = np.linalg.inv(np.vstack([matrix, (0, 0, 1)]))
    padded = np.pad(image.astype(float), ((4, 4), (4, 4), (0, 0)))

    def weights(t):
        x = np.abs(np.arange(-1, 3) - t)
        near = ((-0.75 + 2) * x - (-0.75 + 3)) * x * x + 1
        far = ((x - 5) * x + 8) * x * -0.75 - 4 * -0.75
        return np.where(x < 1, near, far)

    out = np.zeros((size, size, 3))
    for v in range(size):
        for u in range(size):
            x, y, _ = inverse @ (u, v, 1)
            if not (-2 <= x < image.shape[1] + 1 and -2 <= y < image.shape[0] + 1):
                continue
            i, j = int(np.floor(x)), int(np.floor(y))
            patch = padded[j + 3 : j + 7, i + 3 : i + 7]
            out[v, u] = np.einsum("j,i,jic->c", weights(y - j), weights(x - i), patch)
    return np.clip(np.round(out), 0, 255)


def test_warp_is_opencv_bicubic_with_black_outside(painted):
    image, landmarks = painted["n000001"][0]
    matrix = fit_similarity(landmarks[None], template_points("seed", 64))[0][0]
    difference = np.abs(warp(image, matrix, 64) - naive_bicubic(image, matrix, 64))
    assert (difference <= 1).mean() > 0.999
    assert difference.max() <= 3
    away = matrix + [[0, 0, 40], [0, 0, 0]]
    assert (warp(image, away, 64)[:, :20] == 0).all()


@given(
    center=st.tuples(st.floats(-0.3, 1.3), st.floats(-0.3, 1.3)),
    scale=st.floats(0.3, 8.0),
    angle=st.floats(-np.pi, np.pi),
    mirror=st.sampled_from([1.0, -1.0]),
    shape=st.sampled_from([(90, 120, 3), (120, 90), (1, 1, 3), (1600, 1500, 3)]),
)
@settings(max_examples=60)
def test_padding_changes_nothing(center, scale, angle, mirror, shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape[:2], 3), np.uint8)
    image = cv2.GaussianBlur(image, (5, 5), 0)[..., : shape[2] if len(shape) == 3 else 1].reshape(shape)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale * (mirror, 1)
    matrix = np.column_stack([turn, (32, 32) - turn @ (np.array(center) * shape[1::-1])])
    plain = cv2.warpAffine(image, matrix, (64, 64), flags=cv2.INTER_CUBIC)
    difference = cv2.absdiff(warp(image, matrix, 64), plain)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.002
