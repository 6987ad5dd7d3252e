"""Image sizes from headers, and the warning of photographs."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest

from pipeline.images.sizes import image_size, photograph_warning


def write(path, width, height):
    cv2.imwrite(str(path), np.zeros((height, width, 3), np.uint8))
    return str(path)


@pytest.mark.parametrize(
    ("width", "height", "warned"),
    [
        (112, 112, False),
        (96, 112, False),
        (250, 250, False),  # LFW's images: nothing tells them from crops
        (120, 100, False),
        (20, 36, False),
        (640, 480, True),
        (480, 1000, True),
        (3000, 4000, True),
        (1200, 1200, True),
    ],
)
def test_photographs_are_recognised_by_shape_and_size(tmp_path, width, height, warned):
    warning = photograph_warning([write(tmp_path / "a.png", width, height)])
    assert (warning is not None) == warned
    if warned:
        assert f"1 of 1 image tried ({tmp_path}/a.png: {width}x{height} px)" in warning


def test_a_few_odd_crops_are_no_reason_to_warn(tmp_path):
    crops = [write(tmp_path / f"{number}.png", 100, 120) for number in range(18)]
    wide = [write(tmp_path / f"wide-{number}.png", 200, 100) for number in range(2)]
    assert photograph_warning([*crops, *wide[:1]]) is None
    assert "2 of 20 images" in photograph_warning([*crops, *wide])


def test_only_some_of_many_images_are_tried(tmp_path, monkeypatch):
    tried = []
    monkeypatch.setattr("pipeline.images.sizes.image_size", lambda path: tried.append(path) or (100, 100))
    assert photograph_warning([str(number) for number in range(12_345)]) is None
    assert 150 < len(tried) <= 200


def test_files_that_cannot_be_read_have_no_size(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "empty.png").touch()
    names = ["pipe.png", "empty.png", "none.png", "."]
    assert [image_size(tmp_path / name) for name in names] == [None] * 4
    assert photograph_warning([str(tmp_path / name) for name in names]) is None
