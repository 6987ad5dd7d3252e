"""The build's yardsticks do the same work as the build."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from benchmarks.speed.build import bare_calls, plain_build, plain_similarity, time_build
from benchmarks.speed.faces import build_tree, data_root, read_faces, resized, write_vggface2
from pipeline.align import fit_similarity, template_points
from shards.index import ShardReader

TEMPLATE = template_points("seed", 128)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return data_root(None, tmp_path_factory.mktemp("faces"), quick=True)


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_plain_fit_is_the_closed_form(mirrored):
    rng = np.random.default_rng(0)
    for _ in range(20):
        landmarks = TEMPLATE * ((-1, 1) if mirrored else (1, 1)) * rng.uniform(0.3, 5) + rng.normal(0, 2, (5, 2))
        (expected,), _ = fit_similarity(landmarks[None], TEMPLATE)
        assert np.allclose(plain_similarity(landmarks, TEMPLATE), expected, atol=1e-8)


@pytest.mark.parametrize("grey", [False, True])
def test_the_plain_build_and_ours_give_the_same_crops(root, tmp_path, grey):
    faces = [resized(face, 160, 200) for face in read_faces(root, 6)]
    tree = write_vggface2(faces, tmp_path / "tree", images=8, grey=grey)
    assert plain_build(tree, tmp_path / "plain", 8, 1) == 8
    index = build_tree(tree, tmp_path / "shards", 1)
    assert len(index) == 8
    with ShardReader(index) as reader:
        for row in range(8):
            ours = cv2.imdecode(np.frombuffer(reader.image(row), np.uint8), cv2.IMREAD_COLOR)
            plain = cv2.imread(str(tmp_path / "plain" / f"{index.key(row)}.jpg"))
            apart = np.abs(ours.astype(int) - plain)  # our points are float32: a sample may fall on the next 1/32 px
            assert apart.max() <= 12
            assert apart.mean() < 0.1
            assert (ours == ours[..., :1]).all() == grey


def test_bare_calls_are_as_many_as_a_build_has_images(root, tmp_path):
    tree = write_vggface2(read_faces(root, 3), tmp_path / "tree", images=3, grey=True)
    with bare_calls(tree, 7, 2) as bare:
        once = bare(True)
    with bare_calls(tree, 14, 2) as bare:
        assert bare(True) == pytest.approx(2 * once, rel=0.1)
        assert bare(True) == pytest.approx(bare(False), rel=0.001)  # hardly a pixel differs


@pytest.mark.heavy
def test_colour_and_every_size_are_timed(root, tmp_path):
    timings = list(time_build(root=root, folder=tmp_path, rounds=1, quick=True))
    assert [timing.title for timing in timings] == [
        "similarity fit",
        "build, 160 x 160 px, colour",
        "build, 400 x 500 px, colour",
        "build, 3072 x 2048 px, colour",
    ]
    for timing in timings[1:]:
        assert set(timing.roles.values()) == {"baseline", "ours", "floor"}
        plain, ours, *bare = timing.amounts.values()
        assert plain == ours  # of a quick run; a full one gives the plain build fewer
        assert bare == [ours / 4] * 2
