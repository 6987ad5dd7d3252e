"""The script that compares found landmarks with given ones."""

from __future__ import annotations

import functools

import cv2
import numpy as np
import pytest

from pipeline.tables.landmark_table import HEADER
from tests.pipeline.landmarks.stand_in import StandIn, scene
from tools.landmark_accuracy import PHOTOGRAPH, accuracy, given_faces, in_photograph, reduced


@pytest.fixture
def faces(tmp_path):
    """Six scenes of 160 px, one without a face, and their given points, which are 2 px to the right."""
    lines = [",".join(HEADER)]
    (tmp_path / "faces" / "n1").mkdir(parents=True)
    for number in range(6):
        image, points = scene(160, 160, [(30, 20, 100)], number)
        image = image if number else np.zeros_like(image)
        cv2.imwrite(str(tmp_path / "faces" / "n1" / f"{number}.png"), image)
        lines.append(f"n1/{number}," + ",".join(f"{value:.3f}" for value in (points[0] + (2, 0)).ravel()))
    (tmp_path / "x.csv").write_text("\n".join(lines) + "\n")
    return given_faces(tmp_path / "faces", [tmp_path / "x.csv"], 99)


def test_distances_are_fractions_of_the_eye_distance(faces):
    found = accuracy(faces, StandIn())
    assert found.images == 6
    assert found.distances == pytest.approx([2 / 40] * 5, abs=0.01)
    assert (
        found.row == f"40.0 | 5 (83.3%) | {np.median(found.distances):.1%} | {np.percentile(found.distances, 95):.1%}"
    )


def test_reduced_images_have_reduced_points(faces):
    found = accuracy(faces, StandIn(), functools.partial(reduced, side=80))
    assert found.eyes == pytest.approx(20, abs=0.01)
    assert found.distances == pytest.approx([2 / 40] * 5, abs=0.03)
    assert accuracy(faces[:1], StandIn()).row == "40.0 | 0 (0.0%) | - | -"


def test_small_faces_in_a_large_photograph(faces):
    changed = [in_photograph(cv2.imread(face.path), face.points, 0.2) for face in faces[:3]]
    assert {image.shape for image, _ in changed} == {(*PHOTOGRAPH[::-1], 3)}
    assert len({tuple(points[0]) for _, points in changed}) == 3
    found = accuracy(faces, StandIn(), functools.partial(in_photograph, share=0.2))
    assert found.eyes == pytest.approx(40 * 300 / 160, abs=0.01)


def test_images_are_evenly_spaced(tmp_path, faces):
    some = given_faces(tmp_path / "faces", [tmp_path / "x.csv"], 3)
    assert [face.path for face in some] == [face.path for face in faces[::2]]
