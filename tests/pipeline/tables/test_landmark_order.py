"""The order of the five points is recognised by their geometry; right orders give no warning."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from pipeline.tables.landmark_order import order_warning

FACE = np.array([(55, 65), (105, 65), (80, 95), (60, 120), (100, 120)], float)


def points_of(rows, numbers=10):
    """(N, 10) points as a landmark table has them; those of a table with fewer numbers end in NaN."""
    points = np.array(rows, np.float32).reshape(-1, 10)
    points[:, numbers:] = np.nan
    return points


def faces(count=40, noise=3.0, change=lambda points: points, seed=0):
    rng = np.random.default_rng(seed)
    sizes = rng.uniform(0.3, 3, (count, 1, 1))
    return [change(points) for points in sizes * (FACE + rng.normal(0, noise, (count, 5, 2)))]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (
            lambda p: p[[1, 0, 2, 4, 3]],
            "mirrored, with the subject's left first: right eye, left eye, nose, right mouth",
        ),
        (lambda p: p.T.reshape(5, 2), "x1..x5,y1..y5 (median"),
        (lambda p: p[:, ::-1].T.reshape(5, 2), "y1..y5,x1..x5 (median"),
        (lambda p: p[:, ::-1], "y before x (median"),
        (lambda p: p[[3, 4, 2, 0, 1]], "mouth first: left mouth corner, right mouth corner, nose, left eye, right eye"),
        (lambda p: p[[2, 0, 1, 3, 4]], "nose, left eye, right eye, left mouth corner, right mouth corner"),
        (lambda p: p[[1, 0, 2, 3, 4]], "right eye, left eye, nose, left mouth corner, right mouth corner"),
    ],
)
def test_another_order_is_named(change, found):
    warning = order_warning(points_of(faces(change=change)))
    assert found in warning
    assert "\n" not in warning
    assert warning.endswith("nose, left mouth corner, right mouth corner, as the viewer sees them, x before y")


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p,
        lambda p: p * (0.5, 1),  # half profile
        lambda p: p * (0.2, 1),  # profile
        lambda p: (p - 80) * (1, 0.5),  # from above
    ],
)
@pytest.mark.parametrize("noise", [0.5, 5])
def test_the_expected_order_is_not_doubted(change, noise):
    assert order_warning(points_of(faces(change=change, noise=noise))) is None


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda p: p @ np.array([[0, -1], [1, 0]]), "y before x; mirrored, with the subject's left first: right eye,"),
        (lambda p: p @ np.array([[0, 1], [-1, 0]]), "y before x; mouth first: left mouth corner,"),
        (lambda p: 400 - p, "right mouth corner, left mouth corner, nose, right eye, left eye;"),
    ],
)
def test_rotated_images_and_points_in_another_order_are_reported(change, found):
    """Both give the same numbers: the line says so."""
    warning = order_warning(points_of(faces(change=change, noise=2)))
    assert warning.startswith(
        "most faces are turned by more than 45 degrees; if the images are upright, the points are in"
    )
    assert found in warning
    assert "\n" not in warning


def test_generated_faces_are_in_order(painted):
    assert order_warning(points_of([points for shots in painted.values() for _, points in shots])) is None


def test_a_minority_in_another_order_is_no_reason():
    mixed = faces(30) + faces(20, change=lambda p: p[[1, 0, 2, 4, 3]])
    assert order_warning(points_of(mixed)) is None


def test_points_of_no_face_are_reported():
    rows = np.random.default_rng(0).uniform(0, 100, (200, 5, 2))
    assert "fit no face in any order" in order_warning(points_of(rows))


def test_few_rows_missing_numbers_and_four_points_give_no_warning():
    swapped = faces(change=lambda p: p[[1, 0, 2, 4, 3]])
    assert order_warning(points_of(swapped[:5])) is None
    assert order_warning(points_of(swapped, numbers=8)) is None
    assert order_warning(points_of([np.full((5, 2), np.nan), np.ones((5, 2))] * 20)) is None
    holes = [points if row % 2 else np.full((5, 2), np.nan) for row, points in enumerate(swapped)]
    assert "mirrored" in order_warning(points_of(holes))


def test_infinite_points_give_no_warning_of_numpy():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert order_warning(np.full((40, 10), np.inf, np.float32)) is None
