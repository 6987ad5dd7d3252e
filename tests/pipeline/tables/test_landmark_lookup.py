"""Landmarks of image files: by file name, and by the longest path suffix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.tables.landmark_lookup import NameLookup, PathLookup
from pipeline.tables.landmark_reader import read_landmarks
from pipeline.tables.landmark_table import LandmarkError
from tests.pipeline.tables.landmark_tables import FIVE, write


def parquet(path, keys, first=0.0):
    values = pa.array([[first + number] * 10 for number in range(len(keys))], pa.list_(pa.float64()))
    pq.write_table(pa.table({"key": keys, "landmarks": values}), path)
    return path


def lookup(*paths, **options):
    return NameLookup(read_landmarks(paths, **options))


def first_numbers(found, names):
    return [found.find(Path(name)).points[0][0] for name in names]


def test_names_are_found_whatever_folder_extension_and_case(tmp_path):
    table = write(tmp_path / "a.csv", [*FIVE, "C:\\faces\\Q.png" + ",70" * 10, "/far/train/r/R.v2.JPEG" + ",80" * 10])
    assert first_numbers(lookup(table), ["X.png", "else/y.jpg", "z", "q.jpg", "r.v2.bmp"]) == [0, 10, 20, 70, 80]


def test_names_are_found_in_any_normal_form(tmp_path):
    table = write(tmp_path / "a.csv", ["Ren\u00e9e/\u00c5.jpg" + ",70" * 10, "o\u0308.jpg" + ",80" * 10])
    assert first_numbers(lookup(table), ["A\u030a.png", "\u00e5.jpg", "\u00f6.jpg", "O\u0308"]) == [70, 70, 80, 80]


def test_a_repeated_name_must_have_the_same_numbers(tmp_path):
    path = write(tmp_path / "a.csv", [*FIVE, FIVE[1]])
    assert first_numbers(lookup(path), ["x", "y", "z"]) == [0, 10, 20]
    path = write(tmp_path / "a.csv", [*FIVE, "b/y.png" + ",5" * 10])
    with pytest.raises(LandmarkError) as error:
        lookup(path)
    assert str(error.value) == (
        f"{path}: the landmarks of b/y differ between a.csv row 2 and a.csv row 4; keep one of them"
    )
    path, other = write(tmp_path / "a.csv", FIVE), parquet(tmp_path / "b.parquet", ["q", "z"])
    with pytest.raises(LandmarkError) as error:
        lookup(path, other)
    assert str(error.value) == (
        f"{path}, {other}: the landmarks of z differ between a.csv row 3 and b.parquet row 2; keep one of them"
    )


def test_four_points_and_five_points_of_one_name_differ(tmp_path):
    four = write(tmp_path / "b.txt", [f"{name} 0 1 2 3 4 5 6 7" for name in "xq"])
    with pytest.raises(LandmarkError, match="the landmarks of x differ"):
        lookup(write(tmp_path / "a.csv", FIVE), four, four_points=True)


def test_a_row_without_numbers_contradicts_no_other(tmp_path):
    path = write(tmp_path / "a.csv", ["x.jpg" + ",nan" * 10, FIVE[0], "x.jpg" + ",nan" * 10, "q.jpg" + ",nan" * 10])
    found = lookup(path)
    assert first_numbers(found, ["x"]) == [0]
    assert found.find(Path("q")).place == "a.csv row 4"


def test_landmarks_say_where_they_are_from(tmp_path):
    found = lookup(write(tmp_path / "a.csv", FIVE), parquet(tmp_path / "b.parquet", ["q"]))
    assert [found.find(Path(f"far/{name}.PNG")).place for name in "XQ"] == ["a.csv row 1", "b.parquet row 1"]
    absent = found.find(Path("none.jpg"))
    assert (absent.points, absent.place) == ((), "a.csv, b.parquet")


def test_a_table_of_other_images_is_refused(tmp_path):
    path = write(tmp_path / "a.csv", FIVE)
    lookup(path).require_any([Path("none.jpg"), Path("Z.png")], "LFW")
    with pytest.raises(LandmarkError) as error:
        lookup(path).require_any([Path("none.jpg")], "LFW")
    assert str(error.value) == (
        f"{path}: no landmarks for any image of LFW, for example none; name the right table with --landmarks"
    )


def test_the_longest_path_suffix_wins(tmp_path):
    keys = ["train/n1/1.jpg", "n2/1", "2", "1", "b/3", "3", "3"]
    table = read_landmarks([parquet(tmp_path / "a.parquet", keys)])
    paths = ["/d/train/n1/1.jpg", "/d/train/n2/1.png", "n2/2.jpg", "n3/1.jpg", "b/3.jpg", "c/3.jpg", "4.jpg"]
    found = PathLookup(table, paths)
    assert [found.problem(image) for image in range(7)] == [
        *[None] * 5,
        f"duplicate landmarks in {tmp_path / 'a.parquet'}",
        f"no landmarks in {tmp_path / 'a.parquet'}",
    ]
    assert [found.find(image).points[0][0] for image in range(5)] == [0, 1, 2, 3, 4]
    shared = PathLookup(table, ["x/2.jpg", "y/2.jpg"])
    assert shared.problem(0) == f"several images match these landmarks in {tmp_path / 'a.parquet'}"


def test_extensions_tell_images_of_one_name_apart(tmp_path):
    table = read_landmarks([parquet(tmp_path / "a.parquet", ["n1/1.jpg", "n1/1.PNG", "n1/2.jpg", "n2/1.gif", "n1/3"])])
    names = ["n1/1.png", "n1/1.jpg", "n1/1.gif", "n1/2.jpg", "n1/2.png", "n2/1.webp", "n1/3.jpg", "n1/3.png"]
    found = PathLookup(table, [f"d/{name}" for name in names])
    problems = [found.problem(image) for image in range(len(names))]
    assert [problem and problem.split()[0] for problem in problems] == [
        *(None, None, "duplicate", None, "several", None, "several", "several")
    ]
    points, reasons = found.points()
    assert points[[0, 1, 3, 5], 0].tolist() == [1, 0, 2, 3]
    assert reasons == {image: problem for image, problem in enumerate(problems) if problem}


def test_a_row_without_numbers_gives_its_own_reason(tmp_path):
    numbers = {f"P{point}{axis}": pa.array([1.0, None, None]) for point in range(1, 6) for axis in "XY"}
    reasons = {"reason": [None, "no face found in the 9x9 image", None]}
    pq.write_table(pa.table({"path": ["a/1.jpg", "a/2.jpg", "a/3.jpg"], **numbers, **reasons}), tmp_path / "a.parquet")
    points, problems = PathLookup(read_landmarks([tmp_path / "a.parquet"]), ["a/1.jpg", "a/3.jpg", "a/2.jpg"]).points()
    assert np.isnan(points).all(1).tolist() == [False, True, True]
    assert problems == {1: "the landmarks are missing", 2: "no face found in the 9x9 image"}


@pytest.mark.parametrize(
    "written",
    [
        "n1/1.jpg",
        "./n1/1.jpg",
        "/elsewhere/VGGFace2/train/n1/1.jpg",
        "C:\\faces\\train\\n1\\1.jpg",
        "VGGFace2/train/n1/1.png",
        "n1\\1.jpg",
        "../n1/1",
    ],
)
def test_the_last_two_parts_of_a_longer_key_suffice(tmp_path, written):
    table = read_landmarks([parquet(tmp_path / "a.parquet", [written, written.replace("n1", "n2")])])
    found = PathLookup(table, ["/d/set/train/n2/1.jpg", "n1/1.tif", "/d/n3/1.jpg", "1.jpg"])
    assert [found.problem(image) is None for image in range(4)] == [True, True, False, False]
    assert [found.find(image).points[0][0] for image in range(2)] == [1, 0]


def test_a_longer_end_wins_and_a_whole_key_wins_over_a_part(tmp_path):
    keys = ["a/n1/1", "b/n1/1", "n2/1", "x/n2/1", "x/n3/1", "y/n3/1"]
    table = read_landmarks([parquet(tmp_path / "a.parquet", keys)])
    found = PathLookup(table, ["b/n1/1.jpg", "c/a/n1/1.jpg", "z/n2/1.jpg", "z/n3/1.jpg"])
    assert [found.find(image).points[0][0] for image in range(3)] == [1, 0, 2]
    assert [found.problem(image) for image in range(4)] == [None] * 3 + [
        f"duplicate landmarks in {tmp_path / 'a.parquet'}"
    ]


def test_paths_in_any_normal_form_match(tmp_path):
    table = read_landmarks([parquet(tmp_path / "a.parquet", ["Ren\u00e9e/o\u0308"])])
    assert PathLookup(table, ["d/Rene\u0301e/\u00f6.JPG"]).problem(0) is None
