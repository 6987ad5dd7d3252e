"""Generated faces: the same seed, the same bytes; exact landmarks; layouts as the real ones."""

from __future__ import annotations

import csv
import itertools
from collections import Counter

import cv2
import numpy as np
import pytest
import scipy.io

import pipeline.demo.writer
from pipeline.demo.faces import sample_identity, sample_shot
from pipeline.demo.layouts import LAYOUTS, DemoOptions
from pipeline.demo.painter import paint
from pipeline.demo.photographs import FIRST_TEST_PERSON, develop
from pipeline.demo.writer import DemoDataError, write_demo_data
from pipeline.sources.landmarks import read_landmarks

IDENTITIES, IMAGES, TEST_PEOPLE = 9, 3, 4
SIZES = {"identities": IDENTITIES, "images": IMAGES, "seed": 1}
TRAINING_SETS = ("VGGFace2", "QMUL-SurvFace/training_set", "TinyFace/Training_Set")
XQLFW = "lfw_original_imgs_min_qual0.85variant11"


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    write_demo_data(out, **SIZES)
    return out


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(demo, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline.demo.writer, "_FEW", 0)  # in processes, where the first were painted in this one
    write_demo_data(tmp_path / "again", **SIZES)
    assert tree(tmp_path / "again") == tree(demo)
    write_demo_data(tmp_path / "other", **{**SIZES, "seed": 2})
    first, other = tree(demo), tree(tmp_path / "other")
    assert list(first) == list(other)
    assert [path for path in first if path.endswith(".jpg") and first[path] == other[path]] == []


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_data_set_made_alone_is_the_same(name, demo, tmp_path):
    write_demo_data(tmp_path, **SIZES, layouts=[name])
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert tree(tmp_path / name) == tree(demo / name)


def test_people_of_the_benchmarks_are_in_no_training_set():
    options = DemoOptions(**SIZES)
    training, testing = set(), set()
    for name, layout in LAYOUTS.items():
        prints = layout(options).prints
        paths = [job.path for job in prints]
        assert len(set(paths)) == len(paths)
        for job in prints:
            (training if f"{name}/{job.path}".startswith(TRAINING_SETS) else testing).add(job.person)
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


def test_xqlfw_shows_the_same_images_some_of_them_badly(demo):
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


def test_pair_lists_name_images_of_one_person_and_of_two(demo):
    images = set(jpegs(demo / "LFW" / "lfw"))
    check_pairs(demo / "LFW" / "pairs.txt", images)
    check_pairs(demo / "XQLFW" / "xqlfw_pairs.txt", images)
    assert (demo / "LFW" / "pairs.txt").read_text() != (demo / "XQLFW" / "xqlfw_pairs.txt").read_text()


def test_with_people_enough_nobody_is_in_two_folds_and_no_pair_comes_twice(tmp_path):
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
    prints = LAYOUTS["SCface"](DemoOptions(identities=identities, images=2, seed=0)).prints
    mugshots = [int(job.path.split("/")[-1][:3]) for job in prints if "mugshot" in job.path]
    assert len(mugshots) == len(set(mugshots)) == subjects
    assert (mugshots[0], mugshots[-1]) == (1, 130)
    assert len(prints) == subjects * 16


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
    """Put on one another by their landmarks, a small print and the photograph that it came from agree."""
    names = [job.path.split("/")[1] for job in LAYOUTS["LFW"](DemoOptions(**SIZES)).prints[::IMAGES]]
    large, small = landmark_rows(demo / "LFW" / "LFW.csv"), landmark_rows(demo / "SCface" / "scface_distance3.csv")
    prints = {
        job.path.removeprefix("SCface_database/"): job
        for job in LAYOUTS["SCface"](DemoOptions(**SIZES)).prints
        if job.path.endswith("_3.jpg")
    }
    assert len(small) == TEST_PEOPLE * 5
    for path, points in small.items():
        job = prints[path]
        name = names[job.person - FIRST_TEST_PERSON]
        source = f"{name}/{name}_{job.image + 1:04d}.jpg"
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


def test_surveillance_faces_are_small(demo):
    for folder, count, most in (("QMUL-SurvFace", 36, 30), ("TinyFace", 24, 39)):
        paths = sorted((demo / folder).rglob("*.jpg"))
        assert len(paths) == count
        widths, heights = np.array([size(path) for path in paths]).T
        assert 8 <= widths.min() <= widths.max() <= most
        assert (heights > widths).all()


@pytest.mark.slow
@pytest.mark.parametrize(("identities", "images"), [(2, 2), (4, 2), (5, 7)])
def test_few_people_fill_every_protocol(tmp_path, identities, images):
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


def test_a_second_time_nothing_is_painted_and_other_options_are_refused(demo, monkeypatch):
    before = tree(demo)
    monkeypatch.setattr(pipeline.demo.writer, "develop", None)
    write_demo_data(demo, **SIZES)
    assert tree(demo) == before
    with pytest.raises(DemoDataError, match="VGGFace2: exists and is generated with other options"):
        write_demo_data(demo, **{**SIZES, "seed": 5})


@pytest.mark.parametrize("few", [{"identities": 1}, {"images": 1}])
def test_fewer_than_two_of_anything_are_refused(few, tmp_path):
    with pytest.raises(ValueError, match="two are the least"):
        write_demo_data(tmp_path, **{**SIZES, **few})


def test_other_data_are_refused_before_anything_is_painted(tmp_path):
    (tmp_path / "TinyFace").mkdir()
    with pytest.raises(DemoDataError, match="TinyFace: exists and is not generated data"):
        write_demo_data(tmp_path, **SIZES)
    assert [path.name for path in tmp_path.iterdir()] == ["TinyFace"]


def test_what_an_earlier_version_laid_out_otherwise_is_refused(tmp_path):
    (tmp_path / "QMUL-SurvFace").mkdir()
    (tmp_path / "QMUL-SurvFace" / "generated.json").write_text('{"identities": 9, "images": 3, "seed": 1}\n')
    with pytest.raises(DemoDataError, match=r"QMUL-SurvFace: exists and is .* by another version; .* delete it"):
        write_demo_data(tmp_path, **SIZES, layouts=["QMUL-SurvFace"])


def test_an_interrupted_run_keeps_what_is_finished_and_makes_the_rest_again(demo, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline.demo.writer, "develop", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_demo_data(tmp_path, **SIZES)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [
        "LFW.partial",
        "QMUL-SurvFace.partial",
        "SCface.partial",
        "TinyFace.partial",
        "VGGFace2",
        "XQLFW.partial",
    ]
    (tmp_path / "LFW.partial" / "stray.jpg").touch()
    kept = (tmp_path / "VGGFace2" / "train" / "n000001" / "0001_01.jpg").stat().st_mtime_ns
    monkeypatch.undo()
    write_demo_data(tmp_path, **SIZES)
    assert tree(tmp_path) == tree(demo)
    assert (tmp_path / "VGGFace2" / "train" / "n000001" / "0001_01.jpg").stat().st_mtime_ns == kept


def interrupted(sitting):
    if sitting.person == FIRST_TEST_PERSON + 1:
        raise KeyboardInterrupt
    return develop(sitting)


def test_landmarks_lie_on_what_they_name():
    """A face painted without nuisance: dark pupils at the eyes, lips between the mouth corners, order as viewed."""
    found = 0
    for person in range(12):
        who = sample_identity(np.random.default_rng(person))
        rng = np.random.default_rng([person, 1])
        shot = sample_shot(rng)
        image, points = paint(who, shot, width=240, height=300, rng=rng)
        left, right, nose, left_mouth, right_mouth = points
        assert left[0] < right[0]
        assert left_mouth[0] < right_mouth[0]
        assert max(left[1], right[1]) < nose[1] < max(left_mouth[1], right_mouth[1])
        assert ((points > 0) & (points < (240, 300))).all()
        if who.glasses == 0 and abs(shot.yaw) < 0.3:
            for eye in (left, right):
                x, y = np.round(eye).astype(int)
                patch = image[y - 4 : y + 5, x - 6 : x + 7].astype(int).sum(2)
                assert patch.min() < 0.6 * image[y + 22 : y + 27, x - 5 : x + 6].astype(int).sum(2).mean()
                found += 1
    assert found >= 6


def test_people_differ_more_than_photographs_of_one():
    def average(person):
        who = sample_identity(np.random.default_rng(person))
        faces = []
        for image in range(6):
            rng = np.random.default_rng([person, image])
            faces.append(paint(who, sample_shot(rng), width=96, height=120, rng=rng)[0].astype(float)[30:90, 25:70])
        return np.stack(faces)

    people = [average(person) for person in range(6)]
    within = np.mean([faces.std(0).mean() for faces in people])
    between = np.stack([faces.mean(0) for faces in people]).std(0).mean()
    assert between > 0.4 * within
