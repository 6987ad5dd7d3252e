"""Data sets are found by layout; images that are missing, odd or without landmarks are reported, with the first one."""

from __future__ import annotations

import os
import re
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from commands.diagnosis.data_sets import data_set_findings
from commands.diagnosis.layouts import find_layouts
from pipeline.tables.landmark_reader import read_landmarks
from tests.commands.diagnosis.probes import of

KINDS = {
    "LFW": "lfw",
    "QMUL-SurvFace": "qmul",
    "SCface": "scface",
    "TinyFace": "tinyface",
    "VGGFace2": "vggface2",
    "XQLFW": "xqlfw",
}


def findings(demo, name):
    return list(data_set_findings(KINDS[name], demo / name))


def bad(demo, name):
    found = findings(demo, name)
    return of(found, "FAIL") + of(found, "warn")


def test_every_data_set_is_found_by_its_layout(demo):
    assert dict(find_layouts(demo)) == {kind: demo / name for name, kind in KINDS.items()}


def test_links_lead_to_no_data_set_twice(demo):
    (demo / "LFW" / "self").symlink_to(".")
    (demo / "A").symlink_to("VGGFace2")
    (demo / "all").symlink_to(demo)
    assert sorted(find_layouts(demo)) == sorted((kind, demo / name) for name, kind in KINDS.items())


def test_a_link_to_a_data_set_elsewhere_is_followed(demo, tmp_path):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "A").symlink_to(demo / "VGGFace2")
    assert list(find_layouts(tmp_path / "links")) == [("vggface2", tmp_path / "links" / "A")]


def test_data_sets_in_a_folder_of_theirs(demo, tmp_path):
    for name in KINDS:
        (tmp_path / "benchmarks").mkdir(exist_ok=True)
        (demo / name).rename(tmp_path / "benchmarks" / name)
    assert dict(find_layouts(tmp_path)) == {kind: tmp_path / "benchmarks" / name for name, kind in KINDS.items()}


@pytest.mark.parametrize("name", KINDS)
def test_a_data_set_of_any_name_and_case(demo, name):
    (demo / name).rename(demo / "any NAME")
    for path in list((demo / "any NAME").iterdir()):
        if path.name != "generated.json":
            path.rename(path.with_name(path.name.lower()))
    assert dict(find_layouts(demo / "any NAME")) == {KINDS[name]: demo / "any NAME"}
    assert (KINDS[name], demo / "any NAME") in list(find_layouts(demo))


def test_an_empty_folder_for_lfw_hides_nothing(demo):
    """A download that failed leaves one, and a copy may hold the archive alone."""
    shutil.rmtree(demo / "LFW")
    (demo / "LFW").mkdir()
    others = {kind: demo / name for name, kind in KINDS.items() if kind != "lfw"}
    assert dict(find_layouts(demo)) == others
    (demo / "LFW" / "lfw.tgz").write_text("")
    assert dict(find_layouts(demo)) == others


def test_images_of_lfw_beside_other_data_sets_hide_nothing(demo):
    (demo / "LFW" / "lfw").rename(demo / "faces")
    shutil.rmtree(demo / "LFW")
    (demo / "faces").rename(demo / "lfw")
    assert dict(find_layouts(demo)) == {kind: demo / name for name, kind in KINDS.items()} | {"lfw": demo}


def test_folders_of_a_data_set_are_none(demo):
    assert list(find_layouts(demo / "VGGFace2" / "bb_landmark")) == []
    for inner in ("LFW/lfw", "QMUL-SurvFace/training_set"):  # each is a folder of identities of its own
        assert list(find_layouts(demo / inner)) == [("folder", demo / inner)]


def test_a_vggface2_without_landmark_folder(demo):
    (demo / "VGGFace2" / "bb_landmark").rename(demo / "elsewhere")
    assert dict(find_layouts(demo / "VGGFace2")) == {"vggface2": demo / "VGGFace2"}
    (text,) = bad(demo, "VGGFace2")
    assert "no landmark file; expected bb_landmark/" in text


@pytest.mark.parametrize("name", KINDS)
def test_whole_data_sets(demo, name):
    found = findings(demo, name)
    assert of(found, "FAIL") + of(found, "warn") == []
    assert of(found, "note") == ["generated faces of demo-data: scores on them say nothing about real ones"]


@pytest.mark.parametrize("name", KINDS)
def test_sizes_are_compared_with_the_published_ones(demo, name):
    (demo / name / "generated.json").unlink()
    assert any("ublished" in text for text in bad(demo, name))


def images(folder):
    return sorted(path for path in folder.rglob("*.jpg"))


@pytest.mark.parametrize("name", ["LFW", "XQLFW", "SCface", "QMUL-SurvFace", "TinyFace"])
def test_the_first_missing_image_is_named(demo, name):
    folder = {
        "LFW": "LFW/lfw",
        "XQLFW": "XQLFW",
        "SCface": "SCface/SCface_database/surveillance_cameras_all",
        "QMUL-SurvFace": "QMUL-SurvFace/Face_Verification_Test_Set",
        "TinyFace": "TinyFace/Testing_Set/Probe",
    }[name]
    first = images(demo / folder)[0]
    first.unlink()
    texts = bad(demo, name)
    assert any(re.fullmatch(rf"missing: 1 of \d+ images, first {re.escape(str(first))}", text) for text in texts), texts


@pytest.mark.parametrize("name", ["LFW", "SCface", "TinyFace"])
def test_odd_images_are_named(demo, name):
    first, second = (images(demo / name / part)[0] for part in {
        "LFW": ("lfw", "lfw"), "SCface": (".", "."), "TinyFace": ("Testing_Set/Probe", "Testing_Set/Gallery_Match")
    }[name])  # fmt: skip
    first.write_bytes(b"")
    assert any(f"empty files: 1 image, first {first}" in text for text in bad(demo, name))
    second.write_bytes(b"<html>")
    assert any(text.startswith("unreadable: 1 of ") and text.endswith(f"first {second}") for text in bad(demo, name))


def test_training_images_that_are_no_images(demo):
    for path in images(demo / "VGGFace2" / "train"):
        path.write_bytes(b"x")
    assert any(text.startswith("unreadable: ") for text in bad(demo, "VGGFace2"))


def test_empty_folders_and_other_files(demo):
    train = demo / "VGGFace2" / "train"
    (train / "n009999").mkdir()
    (train / "notes.txt").touch()
    (train / ".hidden").touch()
    (train / "n009998" / "folder.jpg").mkdir(parents=True)
    found = findings(demo, "VGGFace2")
    assert f"2 folders without an image, first {train}/n009998" in of(found, "warn")
    assert f"no image of a person: 2 entries, first {train}/notes.txt" in of(found, "note")


def test_landmark_rows_and_images_are_compared_both_ways(demo):
    first, *_, last = images(demo / "VGGFace2" / "train")
    last.rename(last.with_name("0099_01.jpg"))
    table = "loose_landmark_train.csv + loose_landmark_test.csv"
    key = f"{last.parent.name}/"
    assert bad(demo, "VGGFace2") == [
        f"{table}: without an image: 1 of 8 rows, first {key}{last.stem}",
        f"{table}: without a row: 1 of 8 images, first {key}0099_01",
    ]
    assert first.exists()


def test_a_landmark_row_without_numbers(demo):
    path = demo / "VGGFace2" / "bb_landmark" / "loose_landmark_train.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1].rpartition(",")[0] + ",", *lines[2:]]) + "\n")
    (text,) = bad(demo, "VGGFace2")
    assert "1 row without usable numbers, first n000001/0001_01: P5Y is missing" in text


def test_benchmark_images_without_landmarks(demo):
    path = demo / "LFW" / "LFW.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    texts = bad(demo, "LFW")
    assert any("without landmarks: 1 of 4 images, first " in text for text in texts), texts
    path.unlink()
    (found,) = [one for one in findings(demo, "LFW") if one.level.value == "warn"]
    assert found.text.startswith("bench lfw needs landmarks: LFW.csv: not found")
    assert found.remedy == f"add them, or: lrfr bench lfw --root {demo}/LFW --landmarks auto"
    path.write_text("no table")
    assert any(text.startswith("bench lfw cannot run: ") for text in of(findings(demo, "LFW"), "FAIL"))


def test_lists_that_disagree_with_folders(demo):
    probe = demo / "TinyFace" / "Testing_Set" / "Probe"
    os.link(images(probe)[0], probe / "99_1.jpg")
    assert bad(demo, "TinyFace") == [f"in no list: 1 image of {probe}, first 99_1.jpg"]


def test_parts_of_qmul_are_distinguished(demo):
    (demo / "QMUL-SurvFace" / "Face_Identification_Test_Set").rename(demo / "elsewhere")
    (demo / "QMUL-SurvFace" / "training_set").rename(demo / "elsewhere too")
    found = findings(demo, "QMUL-SurvFace")
    assert of(found, "FAIL") == []
    notes = of(found, "note")
    assert any(text.startswith("bench qmul-id: ") for text in notes)
    assert "no training_set: build-shards --source qmul cannot run" in notes


def test_a_damaged_list_is_a_failure(demo):
    (demo / "QMUL-SurvFace" / "Face_Verification_Test_Set" / "positive_pairs_names.mat").write_bytes(b"x")
    assert "bench qmul cannot run" in bad(demo, "QMUL-SurvFace")[0]


def parquet(csv, out):
    table = read_landmarks([csv])
    points = pa.array(table.points.tolist(), pa.list_(pa.float32()))
    pq.write_table(pa.table({"key": table.keys, "landmarks": points}), out)
    csv.unlink()


def test_a_benchmark_with_landmarks_that_were_made_for_it(demo):
    parquet(demo / "LFW" / "LFW.csv", demo / "LFW" / "landmarks.parquet")
    found = findings(demo, "LFW")
    assert bad(demo, "LFW") == []
    assert f"bench lfw needs --landmarks {demo}/LFW/landmarks.parquet" in of(found, "note")
    assert "landmarks.parquet: 4 rows, one for each of 4 images" in of(found, "ok")


def test_a_vggface2_with_landmarks_that_were_made_for_it(demo):
    root = demo / "VGGFace2"
    (root / "bb_landmark" / "loose_landmark_test.csv").unlink(missing_ok=True)
    parquet(root / "bb_landmark" / "loose_landmark_train.csv", root / "landmarks.parquet")
    assert bad(demo, "VGGFace2") == []
    assert f"no bb_landmark: build-shards needs --landmarks {root}/landmarks.parquet" in of(
        findings(demo, "VGGFace2"), "note"
    )


def test_folders_that_cannot_be_listed_are_left_out(demo, monkeypatch):
    real = os.scandir

    def scandir(path):
        if os.fspath(path).endswith("XQLFW"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert sorted(dict(find_layouts(demo))) == ["lfw", "qmul", "scface", "tinyface", "vggface2"]


def test_a_folder_of_identities(demo):
    faces = (demo / "VGGFace2" / "train").rename(demo / "faces")
    assert ("folder", faces) in list(find_layouts(demo))
    found = list(data_set_findings("folder", faces))
    assert of(found, "ok") == ["images: 8 images of 4 people"]
    assert of(found, "note") == [f"{faces}: no landmarks.csv"]
    (demo / "VGGFace2" / "bb_landmark" / "loose_landmark_train.csv").rename(faces / "landmarks.csv")
    found = list(data_set_findings("folder", faces))
    assert of(found, "ok")[1] == "landmarks.csv: 8 rows, one for each of 8 images"
    assert of(found, "note") == []
