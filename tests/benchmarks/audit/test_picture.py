"""One photograph is distinguished from two photographs of one person."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from benchmarks.audit.photographs import Looks
from benchmarks.audit.picture import detail, detail_similarity, view, view_similarity
from pipeline.align import fit_similarity, template_points, warp

MIRRORED_POINTS = [1, 0, 2, 4, 3]


def crop(image, points, template="seed"):
    matrices, _ = fit_similarity(points[None], template_points(template, 128))
    return cv2.cvtColor(warp(image, matrices[0], 128), cv2.COLOR_RGB2GRAY)


def versions(image, points):
    """Crops of the same photograph: re-encoded, mirrored, cut, with landmarks of another detector."""
    width = image.shape[1]
    encoded = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR)
    moved = points + np.random.default_rng(0).normal(0, 0.7, (5, 2))
    yield crop(encoded, points)
    yield crop(image[:, ::-1].copy(), (points * (-1, 1) + (width - 1, 0))[MIRRORED_POINTS])
    yield crop(image[8:-5, 6:-9].copy(), points - (6, 8))
    yield crop(encoded, moved)


@pytest.fixture(scope="module")
def shots(painted):
    return [[(image, points.reshape(5, 2)) for image, points in photos] for photos in painted.values()]


def similarity(first, second):
    score, mirrored = view_similarity(view(first, "seed")[None], view(second, "seed")[None])
    one, other = detail(first, "seed"), detail(second, "seed")
    return float(score[0]), detail_similarity(one, np.ascontiguousarray(other[:, ::-1]) if mirrored[0] else other)


def test_versions_of_a_photograph_are_nearer_than_other_photographs_of_the_person(shots):
    same = [similarity(crop(*photos[0]), other) for photos in shots for other in versions(*photos[0])]
    different = [similarity(crop(*photos[0]), crop(*photo)) for photos in shots for photo in photos[1:]]
    assert len(same) == len(different) == 36
    assert min(view for view, _ in same) > 0.95
    farthest = max(detail for _, detail in different)
    assert sum(detail > farthest for _, detail in same) > 32  # painted faces differ less than real ones
    assert min(detail for _, detail in same) > 0.8


def test_mirrored_pictures_have_the_same_look(shots):
    views = np.stack([view(crop(*photo), "seed") for photos in shots for photo in photos])
    looks = Looks(views)
    assert np.allclose(looks.vectors(views), looks.vectors(views[:, :, ::-1]), atol=2e-3)
    nearest = looks.vectors(views).astype(np.float32) @ looks.vectors(views).astype(np.float32).T
    assert (nearest.argmax(1) == np.arange(45)).all()


def test_pictures_without_details_or_beyond_the_photograph_are_like_no_other():
    black, flat = np.zeros((128, 128), np.uint8), np.full((128, 128), 90, np.uint8)
    for image in (black, flat):
        score, _ = view_similarity(view(image, "arcface")[None], view(image, "arcface")[None])
        assert score[0] == 0
        assert detail_similarity(detail(image, "arcface"), detail(image, "arcface")) == 0
