"""The faces that stages are timed on are those that a folder has."""

from __future__ import annotations

import csv

import pytest

from benchmarks.speed import faces
from pipeline.demo.generate import write_demo_data


@pytest.fixture
def root(tmp_path):
    write_demo_data(tmp_path / "root", identities=6, images=4, seed=0, layouts=["VGGFace2"])
    return tmp_path / "root"


def keys(root):
    with open(next(root.rglob("loose_landmark_train.csv"))) as table:
        return [row[0] for row in csv.reader(table)][1:]


@pytest.mark.parametrize("quick", [False, True])
def test_an_excerpt_is_the_first_faces_that_have_an_image(root, tmp_path, monkeypatch, quick):
    monkeypatch.setattr(faces, "_QUICK_EXCERPT" if quick else "_EXCERPT", 5)
    known = keys(root)
    (root / "VGGFace2" / "train" / f"{known[1]}.jpg").unlink()
    index = faces.build_excerpt(root, tmp_path / "out", 1, quick=quick)
    assert [index.key(row) for row in range(len(index))] == sorted([known[0], *known[2:6]])


def test_the_folder_is_found_whatever_its_case(root, tmp_path):
    (root / "VGGFace2").rename(root / "vggface2")
    assert len(faces.read_faces(root, 3)) == 3
    assert len(faces.build_excerpt(root, tmp_path / "out", 1, quick=True)) == len(keys(root))


def test_faces_that_are_laid_out_are_read_again(root, tmp_path):
    some = faces.read_faces(root, 3)
    faces.write_vggface2(some, tmp_path / "again" / "VGGFace2", images=7, grey=False, linked=True)
    again = faces.read_faces(tmp_path / "again", 10)
    assert len(again) == 7
    for face, written in zip([*some, *some, some[0]], again, strict=True):
        assert written.image.shape == face.image.shape
        assert abs(written.points - face.points).max() <= 0.01
