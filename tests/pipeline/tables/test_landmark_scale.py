"""Normalised points are refused; points for larger or smaller images are reported; right ones give no warning."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.tables.landmark_reader import read_landmarks
from pipeline.tables.landmark_scale import MIN_IMAGES, TRIED_IMAGES, scale_warning, spread
from pipeline.tables.landmark_table import LandmarkError

FACE = np.array([(55, 65), (105, 65), (80, 95), (60, 120), (100, 120)], float)
SIZE = (160, 180)


def table(path, faces):
    path.write_text("".join(f"n1/{row},{','.join(map(str, face.ravel()))}\n" for row, face in enumerate(faces)))
    return path


def faces(factor=1.0, count=10):
    rng = np.random.default_rng(0)
    return [(f"n1/{row}", (factor * (FACE + rng.normal(0, 8, FACE.shape))).tolist(), SIZE) for row in range(count)]


@pytest.mark.parametrize("numbers", [8, 10])
@pytest.mark.parametrize(("low", "ends"), [(0, "0.24 and 1.1"), (-1, "-0.41 and 0.73")])
def test_normalised_points_are_refused_with_the_remedy(tmp_path, numbers, low, ends):
    unit = low + (1 - low) * FACE / SIZE
    rows = [face.ravel()[:numbers] for face in [unit, unit + 0.4, unit - 0.1] * 10 + [np.full_like(FACE, 7)] * 5]
    path = table(tmp_path / "a.csv", [*rows, FACE.ravel()[:numbers]])  # one row of another detector
    with pytest.raises(LandmarkError) as error:
        read_landmarks([path], four_points=True)
    assert str(error.value) == (
        f"{path}: the points of 30 of 31 rows looked at lie between {ends}, so they are normalised;"
        " expected px: multiply x by the width of the image and y by its height"
    )


def test_some_rows_of_no_size_are_no_reason(tmp_path):
    rows = [FACE] * 5 + [FACE / SIZE] * 2 + [np.zeros_like(FACE), np.ones_like(FACE), np.full_like(FACE, np.nan)] * 20
    assert len(read_landmarks([table(tmp_path / "a.csv", rows)]).keys) == 67


@pytest.mark.parametrize(("factor", "kind"), [(2, "larger"), (3, "larger"), (10, "larger"), (1 / 3, "smaller")])
def test_points_for_images_of_another_size_are_reported(factor, kind):
    warning = scale_warning(faces(factor))
    assert f"of 10 images tried {'end far outside' if factor > 1 else 'lie in the first third of'}" in warning
    assert warning.endswith(f"probably for {kind} images; name the table of these images, or scale its numbers")
    assert "\n" not in warning


@pytest.mark.parametrize(
    "seen",
    [
        faces(),
        faces(1.3),
        faces(0.6),
        faces(3)[: MIN_IMAGES - 1],
        faces(3)[:5] + faces()[5:],
        [(name, points, None) for name, points, _ in faces(3)],
        [(name, [(np.nan, 1.0)] * 5, size) for name, _, size in faces()],
        [(name, [], size) for name, _, size in faces()],
        [],
    ],
)
def test_points_that_fit_most_images_or_few_images_give_no_warning(seen):
    assert scale_warning(seen) is None


@pytest.mark.parametrize("total", [0, 1, 11, 12, 13, 3_300_000])
def test_few_images_are_tried(total):
    assert min(total, TRIED_IMAGES // 2) <= len(spread(total)) <= TRIED_IMAGES
    assert all(0 <= row < total for row in spread(total))
