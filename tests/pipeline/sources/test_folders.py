"""Images below folders: each folder once, in order; what is left out is reported."""

from __future__ import annotations

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.build.plan import make_plan
from pipeline.sources.folder import Folder
from pipeline.sources.folders import FoundImages, find_images, utf8
from pipeline.sources.source import SourceError
from pipeline.tables.landmark_table import POINT_NAMES


def test_each_folder_is_searched_once_in_order(tmp_path):
    for name in ("b.JPG", "a/2.png", "a/1.webp", "a/deep/3.bmp", "a/notes.txt", "c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    elsewhere.mkdir()
    (elsewhere / "4.png").touch()
    (tmp_path / "linked").symlink_to(elsewhere)
    (tmp_path / "zagain").symlink_to(elsewhere)
    found = find_images([tmp_path / "c.png", tmp_path, tmp_path / "a" / "notes.txt", tmp_path / "none.png"])
    assert found.others == []
    assert [os.path.relpath(path, tmp_path) for path in found.doubles] == ["c.png", "a/loop", "zagain"]
    assert [os.path.relpath(path, tmp_path) for path in found.paths] == [
        *["c.png", "b.JPG", "a/1.webp", "a/2.png", "a/deep/3.bmp", "linked/4.png"],
        *["a/notes.txt", "none.png"],  # named by the user, so rows with a reason
    ]


def test_hidden_and_system_files_are_ignored_and_counted(tmp_path):
    images = ["a/1.JPG", "a/2.jfif", "b/3.tif", "4.ppm"]
    others = ["a/._1.JPG", "@eaDir/1.jpg", "a/.thumbs/x/1.jpg", "a/Thumbs.db", "__MACOSX/a/._1.jpg", "lost+found/1.jpg"]
    for name in images + others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "itself").symlink_to(".")
    os.mkfifo(tmp_path / "pipe")
    found = find_images([tmp_path])
    assert sorted(os.path.relpath(path, tmp_path) for path in found.paths) == sorted(images)
    assert sorted(os.path.relpath(path, tmp_path) for path in found.others) == sorted(
        ["a/._1.JPG", "@eaDir", "a/.thumbs", "a/Thumbs.db", "__MACOSX", "lost+found"]
    )
    hidden = tmp_path / "a" / ".thumbs"
    assert find_images([hidden]) == FoundImages(paths=[str(hidden / "x" / "1.jpg")], others=[], doubles=[])  # named


def test_a_folder_without_images_is_an_error(tmp_path):
    with pytest.raises(SourceError) as error:
        find_images([tmp_path])
    assert str(error.value) == f"{tmp_path}: contains no images; expected .jpg, .png, .tif, ..."


def test_a_file_is_not_aligned_by_the_landmarks_of_another_one_of_its_key(tmp_path):
    names = [
        "test/n1/1.jpg",
        "train/n1/1.jpg",
        "n2/1.bmp",
        "n2/1.jpg",
        "Jos\udce9/1.gif",
        "Jos\udce9/1.jpg",
        "n3/1.png",
    ]
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    numbers = {name: pa.array(range(len(names)), pa.float32()) for name in POINT_NAMES}
    paths = pa.array([utf8(name) for name in names])
    numbers["P1X"] = pa.array([0, 0, 0, None, 0, 0, 0], pa.float32())  # no face was found in n2/1.jpg
    found = {}
    for column in ("else", "reason"):  # another table, and what `landmarks` writes
        pq.write_table(pa.table({"path": paths, **numbers, column: pa.nulls(len(names))}), tmp_path / "x.parquet")
        plan = make_plan(Folder().rows(tmp_path / "in", [tmp_path / "x.parquet"], aligning=True))
        found[column] = {row: plan.rejected[row] for row in range(len(names)) if row in plan.rejected}
    assert {row: status for row, (status, _) in found["else"].items()} == {
        1: "duplicate-key",
        3: "bad-landmarks",
        5: "duplicate-key",
    }
    assert {row: status for row, (status, _) in found["reason"].items()} == {
        0: "duplicate-key",
        2: "duplicate-key",
        3: "bad-landmarks",
        4: "duplicate-key",
    }
    assert found["reason"][0] == ("duplicate-key", "the image of this name is train/n1/1.jpg")
