"""The faces that stages are timed on are those of a folder."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.speed import faces
from benchmarks.speed.faces import Setup
from pipeline.demo.generate import write_demo_data


@pytest.fixture(scope="module")
def _root(tmp_path_factory):
    out = tmp_path_factory.mktemp("faces") / "root"
    write_demo_data(out, identities=6, images=4, seed=0, layouts=["VGGFace2"])
    return out


@pytest.fixture
def root(_root, tmp_path):
    """Generated faces, a copy that a test may damage."""
    return Path(shutil.copytree(_root, tmp_path / "root"))


def keys(root):
    with open(next(root.rglob("loose_landmark_train.csv"))) as table:
        return [row[0] for row in csv.reader(table)][1:]


def excerpt(root, tmp_path, quick):
    setup = Setup(root=root, scratch=tmp_path, rounds=1, quick=quick)
    return faces.build_excerpt(setup, tmp_path / "out", 1)


@pytest.mark.parametrize("quick", [False, True])
def test_an_excerpt_has_the_first_images_that_exist(root, tmp_path, monkeypatch, quick):
    monkeypatch.setattr(faces, "_QUICK_EXCERPT_IMAGES" if quick else "_EXCERPT_IMAGES", 5)
    known = keys(root)
    (root / "VGGFace2" / "train" / f"{known[1]}.jpg").unlink()
    index = excerpt(root, tmp_path, quick)
    assert [index.key(row) for row in range(len(index))] == sorted([known[0], *known[2:6]])


def test_the_folder_name_is_case_insensitive(root, tmp_path):
    (root / "VGGFace2").rename(root / "vggface2")
    assert len(faces.read_faces(root, 3)) == 3
    assert len(excerpt(root, tmp_path, quick=True)) == len(keys(root))


def test_damaged_images_are_skipped(root):
    first, second = keys(root)[:2]
    (root / "VGGFace2" / "train" / f"{first}.jpg").write_bytes(b"\xff\xd8")
    face, expected = faces.read_faces(root, 1)[0], faces.read_faces(root, 24)[0]
    assert np.array_equal(face.image, expected.image)
    assert len(faces.read_faces(root, 24)) == 23
    (root / "VGGFace2" / "train" / f"{second}.jpg").unlink()
    assert len(faces.read_faces(root, 24)) == 22


def test_a_tree_is_read_back(root, tmp_path):
    some = faces.read_faces(root, 3)
    tree = faces.write_tree(some, tmp_path / "again" / "VGGFace2", images=7, grey=False)
    again = faces.read_faces(tmp_path / "again", 10)
    assert len(again) == 7
    for face, written in zip([*some, *some, some[0]], again, strict=True):
        assert written.image.shape == face.image.shape
        assert abs(written.points - face.points).max() <= 0.01
    rows = faces.read_tree(tree, 5)
    assert [path.relative_to(tree).as_posix() for path, _ in rows] == [f"train/n000000/000{n}_01.jpg" for n in range(5)]
    for (_, points), face in zip(rows, again, strict=False):
        assert abs(points - face.points).max() < 0.001


@pytest.mark.parametrize("grey", [False, True])
def test_repeated_images_are_links(root, tmp_path, grey):
    tree = faces.write_tree(faces.read_faces(root, 3), tmp_path / "tree", images=8, grey=grey)
    files = sorted((tree / "train").rglob("*.jpg"))
    assert len(files) == 8
    assert len({path.stat().st_ino for path in files}) == 3
    assert [path.read_bytes() for path in files] == [files[number % 3].read_bytes() for number in range(8)]


def test_a_resized_face_keeps_its_landmarks_in_place():
    image = np.zeros((40, 60, 3), np.uint8)
    image[10, 30] = 255
    for width, height, at in ((120, 100, (60, 30)), (120, 60, (60, 10))):  # mirrored at top and bottom; cropped
        face = faces.resized(faces.Face(image, np.full((5, 2), (30.0, 10.0))), width, height)
        assert face.image.shape == (height, width, 3)
        assert face.points[0].tolist() == list(at)
        y, x = np.unravel_index(face.image[..., 0].argmax(), face.image.shape[:2])
        assert abs(x - at[0]) <= 2
        assert abs(y - at[1]) <= 2
