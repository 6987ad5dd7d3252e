"""Painted faces: landmarks lie on the features, and people are distinct."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.align import crop_points, fit_crops, warp
from pipeline.demo.faces import Conditions, Identity
from pipeline.demo.painter import paint
from pipeline.spec import Preprocessing

SPEC = Preprocessing()


def test_landmarks_are_on_the_features():
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
        if conditions.glasses == 0 and abs(conditions.yaw) < 0.3:
            for eye in (left, right):
                x, y = np.round(eye).astype(int)
                patch = image[y - 4 : y + 5, x - 6 : x + 7].astype(int).sum(2)
                assert patch.min() < 0.6 * image[y + 22 : y + 27, x - 5 : x + 6].astype(int).sum(2).mean()
                found += 1
    assert found >= 6


def test_people_differ_in_detail_and_hardly_in_what_survives_8_px():
    """Pixels of a face at 8 px hardly tell who it is; those of its details do. Else the demo shows no cost of resolution."""
    crops, people = [], np.repeat(np.arange(16), 4)
    for photo, person in enumerate(people):
        rng = np.random.default_rng([person, photo])
        face = Identity(np.random.default_rng(person))
        image, points = paint(face, Conditions(rng), width=150, height=180, rng=rng)
        matrix = fit_crops(points[None], crop_points(SPEC, SPEC.size), SPEC)[0][0]
        crops.append(warp(image, matrix, SPEC.size).astype(np.float32))
    small = [cv2.resize(crop, (8, 8), interpolation=cv2.INTER_AREA) for crop in crops]
    details = [(crop - cv2.GaussianBlur(crop, (0, 0), 4)).mean(2) for crop in crops]
    assert area_under_curve(small, people) < 0.75
    assert area_under_curve([detail[40:120, 20:90] for detail in details], people) > 0.9


def area_under_curve(pictures, people):
    """The share of (same person, other person) couples of pairs that correlation ranks correctly."""
    rows = np.stack(pictures).reshape(len(pictures), -1)
    scores, pairs = np.corrcoef(rows - rows.mean(0)), np.triu(np.ones((len(rows), len(rows)), bool), 1)
    same = people[:, None] == people
    return (scores[same & pairs][:, None] > scores[~same & pairs]).mean()
