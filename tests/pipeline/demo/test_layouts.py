"""Layouts: folders, file names, list files and image sizes are those of the public data sets."""

from __future__ import annotations

import csv
import itertools
from collections import Counter

import cv2
import numpy as np
import pytest
import scipy.io

from pipeline.demo.generate import write_demo_data
from pipeline.demo.layouts import LAYOUTS, DemoOptions
from pipeline.demo.render import FIRST_TEST_PERSON
from pipeline.tables.landmark_reader import read_landmarks
from tests.pipeline.demo.sizes import IDENTITIES, IMAGES, SIZES, TEST_PEOPLE

TRAINING_SETS = ("VGGFace2", "QMUL-SurvFace/training_set", "TinyFace/Training_Set")
XQLFW = "lfw_original_imgs_min_qual0.85variant11"


def test_no_test_person_is_in_a_training_set():
    options = DemoOptions(**SIZES)
    training, testing = set(), set()
    for name, layout in LAYOUTS.items():
        images = layout(options).images
        paths = [image.path for image in images]
        assert len(set(paths)) == len(paths)
        for image in images:
            (training if f"{name}/{image.path}".startswith(TRAINING_SETS) else testing).add(image.person)
    assert training == set(range(IDENTITIES))
    assert testing == {FIRST_TEST_PERSON + index for index in range(TEST_PEOPLE)}


def test_vggface2_layout(demo):
    csvs = [demo / "VGGFace2" / "bb_landmark" / f"loose_landmark_{split}.csv" for split in ("train", "test")]
    assert all('"n0' in path.read_text().splitlines()[1] for path in csvs)
    keys = read_landmarks(csvs).keys.to_pylist()
    on_disk = sorted(
        str(path.relative_to(path.parent.parent).with_suffix("")) for path in demo.glob("VGGFace2/t*/n*/*.jpg")
    )
    assert sorted(keys) == on_disk
    assert len(keys) == IDENTITIES * IMAGES
    assert [path.name for path in (demo / "VGGFace2" / "test").iterdir()] == ["n000008"]


def landmark_rows(path):
    return {row[0]: np.array(row[1:], float).reshape(5, 2) for row in csv.reader(path.read_text().splitlines())}


def size(path):
    height, width = cv2.imread(str(path)).shape[:2]
    return width, height


def jpegs(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.jpg"))


def test_lfw_layout(demo):
    rows = landmark_rows(demo / "LFW" / "LFW.csv")
    assert sorted(rows) == jpegs(demo / "LFW" / "lfw")
    assert len(rows) == TEST_PEOPLE * IMAGES
    for path, points in rows.items():
        name, file = path.split("/")
        assert file in [f"{name}_{image:04d}.jpg" for image in range(1, IMAGES + 1)]
        assert size(demo / "LFW" / "lfw" / path) == (250, 250)
        assert np.abs(points.mean(0) - 125).max() < 30
        assert 25 < np.linalg.norm(points[1] - points[0]) < 60


def test_xqlfw_has_the_images_of_lfw_and_degrades_about_half(demo):
    good, poor = demo / "LFW" / "lfw", demo / "XQLFW" / XQLFW
    assert jpegs(poor) == jpegs(good)
    untouched = []
    for path in jpegs(poor):
        images = [cv2.imread(str(folder / path), cv2.IMREAD_GRAYSCALE) for folder in (good, poor)]
        assert images[0].shape == images[1].shape
        apart = np.abs(cv2.blur(images[0], (41, 41)).astype(int) - cv2.blur(images[1], (41, 41))).mean()
        assert apart < 6, path
        untouched.append((good / path).read_bytes() == (poor / path).read_bytes())
    assert len(untouched) == 12
    assert 0.2 < np.mean(untouched) < 0.8


def fold_lines(path):
    """One (genuine, impostor) pair of line lists a fold."""
    header, *lines = path.read_text().splitlines()
    folds, count = map(int, header.split("\t"))
    assert len(lines) == 2 * folds * count
    fields = [line.split("\t") for line in lines]
    for start in range(0, len(lines), 2 * count):
        yield fields[start : start + count], fields[start + count : start + 2 * count]


def check_pairs(path, images):
    found = 0
    for genuine, impostors in fold_lines(path):
        assert len(genuine) >= 2
        for name, first, second in genuine:
            assert first != second
            assert {f"{name}/{name}_{int(image):04d}.jpg" for image in (first, second)} <= images
        for name, first, other, second in impostors:
            assert name != other
            assert {f"{name}/{name}_{int(first):04d}.jpg", f"{other}/{other}_{int(second):04d}.jpg"} <= images
        found += 1
    assert found == 10


def test_genuine_pairs_show_one_person_and_impostor_pairs_two(demo):
    images = set(jpegs(demo / "LFW" / "lfw"))
    check_pairs(demo / "LFW" / "pairs.txt", images)
    check_pairs(demo / "XQLFW" / "xqlfw_pairs.txt", images)
    assert (demo / "LFW" / "pairs.txt").read_text() != (demo / "XQLFW" / "xqlfw_pairs.txt").read_text()


def test_with_enough_people_folds_are_disjoint_and_pairs_are_unique(tmp_path):
    for name, file in (("LFW", "pairs.txt"), ("XQLFW", "xqlfw_pairs.txt")):
        path = tmp_path / file
        path.write_bytes(LAYOUTS[name](DemoOptions(identities=50, images=4, seed=3)).lists(NoLandmarks())[file])
        folds = list(fold_lines(path))
        people = [{name for line in itertools.chain(*fold) for name in line if not name.isdigit()} for fold in folds]
        assert len(people) == 10
        assert sum(map(len, people)) == len(set.union(*people)) > 20
        lines = [tuple(line) for fold in folds for kind in fold for line in kind]
        assert len(set(lines)) == len(lines) == 200


class NoLandmarks(dict):
    def __missing__(self, path):
        return np.zeros((5, 2))


@pytest.mark.parametrize(("identities", "subjects"), [(4, 2), (64, 32), (400, 130)])
def test_scface_subjects_are_on_both_sides_of_50(identities, subjects):
    images = LAYOUTS["SCface"](DemoOptions(identities=identities, images=2, seed=0)).images
    mugshots = [int(image.path.split("/")[-1][:3]) for image in images if "mugshot" in image.path]
    assert len(mugshots) == len(set(mugshots)) == subjects
    assert (mugshots[0], mugshots[-1]) == (1, 130)
    assert len(images) == subjects * 16


def test_scface_layout(demo):
    database = demo / "SCface" / "SCface_database"
    subjects = [1, 44, 87, 130]
    mugshots = landmark_rows(demo / "SCface" / "scface_mugshot.csv")
    assert list(mugshots) == [f"mugshot_frontal_original_all/{subject:03d}_frontal.jpg" for subject in subjects]
    found = list(mugshots)
    for distance, expected in ((1, 10), (2, 17), (3, 30)):
        text = (demo / "SCface" / f"scface_distance{distance}.csv").read_text()
        assert not text.endswith("\n")
        rows = landmark_rows(demo / "SCface" / f"scface_distance{distance}.csv")
        assert list(rows) == [
            f"surveillance_cameras_all/{subject:03d}_cam{camera}_{distance}.jpg"
            for subject in subjects
            for camera in range(1, 6)
        ]
        for path, points in rows.items():
            eyes = np.linalg.norm(points[1] - points[0])
            assert 0.87 * expected < eyes < 1.13 * expected
            assert ((points > eyes) & (points < np.array(size(database / path)) - eyes)).all()  # context around
        found += rows
    assert sorted(found) == jpegs(database)


def test_landmarks_follow_the_pixels_through_every_camera(demo):
    """Aligned by their landmarks, a small image and the photo it was made from agree."""
    names = [image.path.split("/")[1] for image in LAYOUTS["LFW"](DemoOptions(**SIZES)).images[::IMAGES]]
    large, small = landmark_rows(demo / "LFW" / "LFW.csv"), landmark_rows(demo / "SCface" / "scface_distance3.csv")
    small_images = {
        image.path.removeprefix("SCface_database/"): image
        for image in LAYOUTS["SCface"](DemoOptions(**SIZES)).images
        if image.path.endswith("_3.jpg")
    }
    assert len(small) == TEST_PEOPLE * 5
    for path, points in small.items():
        image = small_images[path]
        name = names[image.person - FIRST_TEST_PERSON]
        source = f"{name}/{name}_{image.photo + 1:04d}.jpg"
        before = patch(demo / "LFW" / "lfw" / source, large[source])
        after = patch(demo / "SCface" / "SCface_database" / path, points)
        assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.98, path
        shift, _ = cv2.phaseCorrelate(before, after)
        assert np.abs(shift).max() < 0.25, path


def patch(path, points):
    """The grey face with its eyes 40 px apart, centred on its landmarks."""
    scale = 40 / np.linalg.norm(points[1] - points[0])
    matrix = np.array([[scale, 0, 0], [0, scale, 0]])
    # x' = x * s under a resize by s: they count from the first pixel's corner, warpAffine from its centre
    matrix[:, 2] = 48 - 0.5 - scale * (points.mean(0) - 0.5)
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    return cv2.GaussianBlur(cv2.warpAffine(image, matrix, (96, 96)), (0, 0), 1.5).astype(np.float32)


def mat_rows(path, variable):
    """(name, identity) of each file of a set."""
    content = scipy.io.loadmat(path)
    names, ids = content[f"{variable}_set"], content[f"{variable}_ids"]
    assert names.shape == ids.shape == (len(names), 1)
    assert (names.dtype, ids.dtype) == (object, np.uint16)
    return [(str(name[0][0]), int(label[0])) for name, label in zip(names, ids, strict=True)]


def check_listed(folder, rows):
    assert sorted(name for name, _ in rows) == jpegs(folder)
    assert all(int(name.split("_")[0]) == label for name, label in rows)
    return {label for _, label in rows}


def test_qmul_training_set(demo):
    folder = demo / "QMUL-SurvFace" / "training_set"
    people = sorted(int(path.name) for path in folder.iterdir())
    assert people == [5, 6, 7, 8]  # the test set has 1 to 4
    assert jpegs(folder) == [
        f"{person}/{person}_cam{image}_{image}.jpg" for person in people for image in range(1, IMAGES + 1)
    ]


def test_qmul_verification_lists(demo):
    test_set = demo / "QMUL-SurvFace" / "Face_Verification_Test_Set"
    images = set(jpegs(test_set / "verification_images"))
    assert len(images) == TEST_PEOPLE * IMAGES
    for kind, same in (("positive", True), ("negative", False)):
        cells = scipy.io.loadmat(test_set / f"{kind}_pairs_names.mat")[f"{kind}_pairs_names"]
        assert cells.shape == (20, 2)
        for first, second in cells:
            assert {first[0], second[0]} <= images
            assert first[0] != second[0]
            assert (first[0].split("_")[0] == second[0].split("_")[0]) == same


def test_qmul_identification_layout(demo):
    test_set = demo / "QMUL-SurvFace" / "Face_Identification_Test_Set"
    listed = {part: mat_rows(test_set / f"{part}_img_ID_pairs.mat", part) for part in ("gallery", "mated_probe")}
    for part, rows in listed.items():
        assert check_listed(test_set / part, rows) == {1, 3}
    unmated = jpegs(test_set / "unmated_probe")
    assert Counter(name.split("_")[0] for name in unmated) == {"distractors": 4, "2": 1, "4": 1}


def test_tinyface_layout(demo):
    test_set = demo / "TinyFace" / "Testing_Set"
    assert check_listed(test_set / "Probe", mat_rows(test_set / "probe_img_ID_pairs.mat", "probe")) == {1, 2, 3}
    gallery = mat_rows(test_set / "gallery_match_img_ID_pairs.mat", "gallery")
    assert check_listed(test_set / "Gallery_Match", gallery) == {1, 2, 3}
    assert jpegs(test_set / "Gallery_Distractor") == ["4_1.jpg", "4_2.jpg", "4_3.jpg"]
    training = jpegs(demo / "TinyFace" / "Training_Set")
    assert training == [f"{person}/{person}_{image}.jpg" for person in (10, 11, 12, 13) for image in (1, 2, 3)]


def test_surveillance_images_are_small(demo):
    for folder, count, most in (("QMUL-SurvFace", 36, 30), ("TinyFace", 24, 39)):
        paths = sorted((demo / folder).rglob("*.jpg"))
        assert len(paths) == count
        widths, heights = np.array([size(path) for path in paths]).T
        assert 8 <= widths.min() <= widths.max() <= most
        assert (heights > widths).all()


@pytest.mark.slow
@pytest.mark.parametrize(("identities", "images"), [(2, 2), (4, 2), (5, 7)])
def test_every_list_has_entries_with_few_people(tmp_path, identities, images):
    write_demo_data(tmp_path, identities=identities, images=images, seed=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(LAYOUTS)
    listed = set(jpegs(tmp_path / "LFW" / "lfw"))
    check_pairs(tmp_path / "LFW" / "pairs.txt", listed)
    check_pairs(tmp_path / "XQLFW" / "xqlfw_pairs.txt", listed)
    expected = (
        "QMUL-SurvFace/Face_Identification_Test_Set/gallery",
        "QMUL-SurvFace/Face_Identification_Test_Set/mated_probe",
        "QMUL-SurvFace/Face_Identification_Test_Set/unmated_probe",
        "TinyFace/Testing_Set/Gallery_Match",
        "TinyFace/Testing_Set/Probe",
        "TinyFace/Testing_Set/Gallery_Distractor",
    )
    assert [folder for folder in expected if not jpegs(tmp_path / folder)] == []
    assert all(len(list((tmp_path / folder).iterdir())) >= 2 for folder in TRAINING_SETS[1:])
