"""The script that measures the effect of another template of the stored crops."""

from __future__ import annotations

import re

import cv2
import numpy as np

from pipeline.build import build
from pipeline.spec import Preprocessing
from tests.shard_sets import build_options
from tools.reframing import compare


def embed(images):
    """What a face looks like, coarsely: 12 x 12 grey values around their mean."""
    grey = np.stack(
        [cv2.resize(image[16:96, 24:88].mean(2), (12, 12), interpolation=cv2.INTER_AREA) for image in images]
    )
    return (grey - grey.mean((1, 2), keepdims=True)).reshape(len(images), -1).astype(np.float32)


def test_crops_of_another_template_are_framed_as_the_photographs(vggface2, shard_set, tmp_path):
    direct = Preprocessing(template="arcface", size=112)
    build(build_options(vggface2, tmp_path / "direct", preprocessing=direct))
    line = compare(shard_set, tmp_path / "direct", embed, direct, 20)
    found = re.fullmatch(
        r"23 images of 9 people: mean cosine (\S+), least (\S+); equal error rate (\S+)% from photographs,"
        r" (\S+)% from stored crops",
        line,
    )
    assert found, line
    mean, least, *rates = map(float, found.groups())
    assert mean > 0.999
    assert least > 0.99
    assert abs(rates[0] - rates[1]) < 5
