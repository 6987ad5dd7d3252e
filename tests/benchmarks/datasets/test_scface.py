"""SCface on generated faces: crops, both sets of subjects, both layouts, both kinds of landmark table."""

from __future__ import annotations

import os
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from benchmarks.datasets.scface import read_scface
from benchmarks.errors import AbsentError, ProtocolError
from pipeline.align import fit_similarity, template_points, warp
from pipeline.images.lookup import is_generated
from pipeline.tables.landmark_table import LandmarkError
from tests.benchmarks.runs import Recorder, add_system_files, bomb, cosine, score

DATABASE = "SCface_database"


@pytest.fixture
def root(demo):
    return demo("SCface")


def landmarks_of(root):
    found = {}
    for path in root.glob("scface_*.csv"):
        for line in path.read_text().splitlines():
            name, *numbers = line.split(",")
            found[name.split("/")[-1]] = np.array(numbers, float).reshape(5, 2)
    return found


def seen_by_network(path, landmarks, probe):
    side = int((landmarks[:, 1].max() - landmarks[:, 1].min()) * 3) if probe else 128
    matrix = fit_similarity(landmarks[None], template_points("seed", side))[0][0]
    crop = Image.fromarray(warp(cv2.imread(str(path)), matrix, side)[..., ::-1])
    return np.asarray(crop.resize((128, 128), Image.Resampling.BICUBIC) if probe else crop)


def naive_rank1(root, distance, subjects):
    database, landmarks, embed = root / DATABASE, landmarks_of(root), Recorder()

    def embedding(folder, name, probe):
        return embed(seen_by_network(database / folder / name, landmarks[name], probe)[None])[0]

    gallery = {s: embedding("mugshot_frontal_original_all", f"{s:03d}_frontal.jpg", False) for s in subjects}
    right = []
    for subject in subjects:
        for camera in range(1, 6):
            probe = embedding("surveillance_cameras_all", f"{subject:03d}_cam{camera}_{distance}.jpg", True)
            right.append(max(gallery, key=lambda other: cosine(gallery[other], probe)) == subject)
    return np.mean(right)


def test_rank_1_equals_a_naive_evaluation(root):
    result = score("scface", root)
    subjects = sorted(int(path.name[:3]) for path in (root / DATABASE / "mugshot_frontal_original_all").iterdir())
    late = [subject for subject in subjects if subject > 50]
    assert 2 <= len(late) < len(subjects)
    for distance in (1, 2, 3):
        assert result.metrics[f"rank1@d{distance}"] == pytest.approx(naive_rank1(root, distance, subjects))
        assert result.metrics[f"rank1@d{distance}/51-130"] == pytest.approx(naive_rank1(root, distance, late))
    assert len(result.metrics) == 6
    assert (result.counts["gallery"], result.counts["probes"]) == (len(subjects), 5 * len(subjects))


def test_nested_folders_and_upper_case_give_the_same_metrics(root):
    expected = score("scface", root).metrics
    database = root / DATABASE
    flat = database / "surveillance_cameras_all"
    for path in flat.iterdir():
        camera, distance = path.stem.split("_")[1:]
        nested = database / f"surveillance_cameras_distance_{distance}" / f"cam_{camera[3:]}" / path.name
        nested.parent.mkdir(parents=True, exist_ok=True)
        path.rename(nested)
    flat.rmdir()
    for path in (database / "mugshot_frontal_original_all").iterdir():
        path.rename(path.with_suffix(".JPG"))
    assert score("scface", root).metrics == expected
    assert score("scface", database).metrics == expected
    assert score("scface", root.parent).metrics == expected


@pytest.mark.parametrize("separator", ["\t", " ", ", ", ";"])
def test_the_official_four_points_align_almost_like_five(root, separator):
    landmarks = landmarks_of(root)
    lines = ["image LeyeX LeyeY ReyeX ReyeY NoseX NoseY MouthX MouthY"]
    for name, points in landmarks.items():
        four = np.vstack([points[:3], points[3:].mean(0)])
        lines.append(separator.join([name[:-4], *map(repr, four.ravel().tolist())]))
    five = Recorder()
    score("scface", root, five)
    for path in root.glob("scface_*.csv"):
        path.unlink()
    (root / DATABASE / "landmarks.txt").write_text("\n".join(lines))
    (root / DATABASE / "readme.txt").write_text("SCface\n")
    four = Recorder()
    score("scface", root, four)
    assert len(four.images) == len(five.images)
    mugshots = len(list((root / DATABASE / "mugshot_frontal_original_all").iterdir()))
    differences = [np.abs(a.astype(int) - b).mean() for a, b in zip(four.images[:mugshots], five.images, strict=False)]
    assert 0 < np.mean(differences) < 10


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (shutil.rmtree, AbsentError, "no mugshot_frontal_original_all in it; expected SCface's mugshots"),
        (
            lambda root: shutil.rmtree(root / DATABASE / "surveillance_cameras_all"),
            ProtocolError,
            "surveillance_cameras_distance_1: not found in",
        ),
        (lambda root: (root / "scface_distance2.csv").unlink(), ProtocolError, "scface_distance2.csv: not found in"),
        (
            lambda root: [path.write_text("other.jpg" + ",1" * 10) for path in root.glob("scface_*.csv")],
            LandmarkError,
            "no landmarks for any image of SCface",
        ),
        (
            lambda root: [path.rename(f"{path}.old") for path in (root / DATABASE).rglob("*.jpg")],
            ProtocolError,
            "mugshots of 0 subjects, expected 130",
        ),
    ],
)
def test_a_missing_or_malformed_part_gives_a_one_line_error(root, damage, error, message):
    damage(root)
    with pytest.raises(error) as caught:
        read_scface(root)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_mugshot_leaves_out_its_probes(root, capsys):
    mugshots = sorted((root / DATABASE / "mugshot_frontal_original_all").iterdir())
    mugshots[0].unlink()
    with pytest.raises(ProtocolError, match="bench scface: 1 unusable image"):
        score("scface", root)
    assert f"{mugshots[0]}: not found" in capsys.readouterr().err
    partial = score("scface", root, allow_missing=True)
    assert partial.counts["left_out"] == 5
    assert len(partial.settings["{}@d1"].ranks) == partial.counts["probes"] - 5


def test_a_probe_without_landmarks_is_listed_with_the_reason(root, capsys):
    path = root / "scface_distance2.csv"
    lines = path.read_text().splitlines()
    name = lines[0].split(",")[0]
    path.write_text("\n".join(lines[1:]))
    with pytest.raises(ProtocolError, match="1 unusable image, listed above; correct the landmark table or name"):
        score("scface", root)
    tables = "scface_mugshot.csv, scface_distance1.csv, scface_distance2.csv, scface_distance3.csv"
    assert (
        f"{name[:-4].split('/')[-1]}.jpg: no row for {name[:-4].split('/')[-1]} in {tables}" in capsys.readouterr().err
    )


def test_a_probe_with_its_points_on_a_line_is_listed_with_the_reason(root, capsys):
    path = root / "scface_distance2.csv"
    lines = path.read_text().splitlines()
    lines[3] = lines[3].split(",")[0] + ",1,5,2,5,3,5,4,5,5,5"
    path.write_text("\n".join(lines))
    with pytest.raises(ProtocolError, match="1 unusable image"):
        score("scface", root)
    assert "landmarks (scface_distance2.csv row 4) coincide or lie on one line" in capsys.readouterr().err


def test_tables_of_five_points_cut_to_four_are_an_error(root):
    for path in root.glob("scface_*.csv"):
        path.write_text("".join(",".join(line.split(",")[:9]) + "\n" for line in path.read_text().splitlines()))
    with pytest.raises(LandmarkError, match=r"scface_mugshot\.csv: line 1: found .*, expected the header"):
        read_scface(root)


def test_files_that_systems_add_change_nothing(root, capsys):
    expected = score("scface", root)
    add_system_files(root)
    capsys.readouterr()
    found = score("scface", root)
    assert (found.metrics, found.counts["images"]) == (expected.metrics, expected.counts["images"])
    assert "mugshot_frontal_original_all: ignored " in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["bomb", "fifo"])
def test_a_hostile_mugshot_is_unusable(root, kind, capsys):
    path = root / DATABASE / "mugshot_frontal_original_all" / "001_frontal.jpg"
    path.unlink()
    path.write_bytes(bomb()) if kind == "bomb" else os.mkfifo(path)
    with pytest.raises(ProtocolError, match="bench scface: 1 unusable image"):
        score("scface", root)
    reason = "the image states 100000x100000 px" if kind == "bomb" else "cannot be "
    assert f"{path}: {reason}" in capsys.readouterr().err


def test_the_error_of_a_missing_table_names_no_folder_above_the_root(root):
    (root / "scface_distance2.csv").unlink()
    with pytest.raises(ProtocolError) as error:
        read_scface(root)
    assert str(error.value).startswith(
        f"scface_distance2.csv: not found in {root}/{DATABASE}, {root}; expected landmarks"
    )


@pytest.mark.parametrize("below", ["", "SCface", f"SCface/{DATABASE}"])
def test_generated_faces_are_detected_from_every_root(root, below):
    assert is_generated(read_scface(root.parent / below).root)
