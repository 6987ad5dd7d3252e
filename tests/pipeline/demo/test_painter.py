"""Painted faces: landmarks lie on the features, and people are distinct."""

from __future__ import annotations

import numpy as np

from pipeline.demo.faces import Conditions, Identity
from pipeline.demo.painter import paint


def test_landmarks_lie_on_the_features():
    """Pupils are dark, and the five points are ordered as the viewer sees them."""
    found = 0
    for person in range(12):
        face = Identity(np.random.default_rng(person))
        rng = np.random.default_rng([person, 1])
        conditions = Conditions(rng)
        image, points = paint(face, conditions, width=240, height=300, rng=rng)
        left, right, nose, left_mouth, right_mouth = points
        assert left[0] < right[0]
        assert left_mouth[0] < right_mouth[0]
        assert max(left[1], right[1]) < nose[1] < max(left_mouth[1], right_mouth[1])
        assert ((points > 0) & (points < (240, 300))).all()
        if face.glasses == 0 and abs(conditions.yaw) < 0.3:
            for eye in (left, right):
                x, y = np.round(eye).astype(int)
                patch = image[y - 4 : y + 5, x - 6 : x + 7].astype(int).sum(2)
                assert patch.min() < 0.6 * image[y + 22 : y + 27, x - 5 : x + 6].astype(int).sum(2).mean()
                found += 1
    assert found >= 6


def test_photos_of_different_people_differ_more_than_of_one_person():
    def average(person):
        face = Identity(np.random.default_rng(person))
        faces = []
        for image in range(6):
            rng = np.random.default_rng([person, image])
            faces.append(paint(face, Conditions(rng), width=96, height=120, rng=rng)[0].astype(float)[30:90, 25:70])
        return np.stack(faces)

    people = [average(person) for person in range(6)]
    within = np.mean([faces.std(0).mean() for faces in people])
    between = np.stack([faces.mean(0) for faces in people]).std(0).mean()
    assert between > 0.4 * within
