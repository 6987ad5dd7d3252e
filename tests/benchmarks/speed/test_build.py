"""The baseline and the floor of the build do the same work as the build."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from benchmarks.speed.baselines import align_files, similarity
from benchmarks.speed.build import bare_calls, time_build
from benchmarks.speed.faces import Setup, build_tree, read_faces, resized, write_tree
from pipeline.align import fit_similarity, template_points
from pipeline.executors import WorkerPool
from shards.index import ShardReader

TEMPLATE = template_points("seed", 128)


@pytest.mark.parametrize("mirrored", [False, True])
def test_least_squares_equal_the_closed_form(mirrored):
    rng = np.random.default_rng(0)
    for _ in range(20):
        landmarks = TEMPLATE * ((-1, 1) if mirrored else (1, 1)) * rng.uniform(0.3, 5) + rng.normal(0, 2, (5, 2))
        (expected,), _ = fit_similarity(landmarks[None], TEMPLATE)
        assert np.allclose(similarity(landmarks, TEMPLATE), expected, atol=1e-8)


@pytest.mark.parametrize("grey", [False, True])
def test_the_baseline_and_the_build_store_the_same_crops(vggface2, tmp_path, grey):
    faces = [resized(face, 160, 200) for face in read_faces(vggface2.parent, 6)]
    tree = write_tree(faces, tmp_path / "tree", images=8, grey=grey)
    assert align_files(tree, tmp_path / "plain", 8, 1) == 8
    index = build_tree(tree, tmp_path / "shards", 1)
    assert len(index) == 8
    with ShardReader(index) as reader:
        for row in range(8):
            ours = cv2.imdecode(np.frombuffer(reader.image(row), np.uint8), cv2.IMREAD_COLOR)
            plain = cv2.imread(str(tmp_path / "plain" / f"{index.key(row)}.jpg"))
            difference = np.abs(ours.astype(int) - plain)  # our points are float32: a sample may move by 1/32 px
            assert difference.max() <= 12
            assert difference.mean() < 0.1
            assert (ours == ours[..., :1]).all() == grey


def test_bare_calls_process_as_many_images_as_they_should(vggface2, tmp_path):
    tree = write_tree(read_faces(vggface2.parent, 3), tmp_path / "tree", images=3, grey=True)
    with WorkerPool(1) as pool:
        once, twice, ordinary = (
            bare_calls(pool, 2, tree, images, as_built=as_built)
            for images, as_built in ((7, True), (14, True), (14, False))
        )
    assert twice == pytest.approx(2 * once, rel=0.1)
    assert twice == pytest.approx(ordinary, rel=0.001)  # a few pixels differ


@pytest.mark.heavy
def test_colour_and_every_size_are_timed(vggface2, tmp_path):
    timings = list(time_build(Setup(root=vggface2.parent, scratch=tmp_path / "scratch", rounds=1, quick=True)))
    assert [timing.title for timing in timings] == [
        "similarity fit",
        "build, 160 x 160 px, colour",
        "build, 400 x 500 px, colour",
        "build, 3072 x 2048 px, colour",
    ]
    for timing in timings[1:]:
        assert [row.role for row in timing.rows.values()] == ["baseline", "ours", "floor", "floor"]
        plain, ours, *bare = (row.amount for row in timing.rows.values())
        assert plain == ours  # in a quick run; otherwise the baseline gets fewer
        assert bare == [ours / 4] * 2
