"""Generated faces: the same seed, the same bytes; exact landmarks; layouts as the real ones."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.faces import sample_identity, sample_shot
from pipeline.landmarks import read_landmarks
from pipeline.painter import paint
from pipeline.synthetic import DemoDataError, write_demo_data


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    write_demo_data(out, identities=9, images=2, seed=1)
    return out


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(demo, tmp_path):
    write_demo_data(tmp_path / "again", identities=9, images=2, seed=1)
    assert tree(tmp_path / "again") == tree(demo)
    write_demo_data(tmp_path / "other", identities=9, images=2, seed=2)
    assert (
        tree(tmp_path / "other")["VGGFace2/train/n000001/0001_01.jpg"]
        != tree(demo)["VGGFace2/train/n000001/0001_01.jpg"]
    )


def test_vggface2_layout(demo):
    csvs = [demo / "VGGFace2" / "bb_landmark" / f"loose_landmark_{split}.csv" for split in ("train", "test")]
    assert all('"n0' in path.read_text().splitlines()[1] for path in csvs)
    keys = read_landmarks(csvs).keys.to_pylist()
    on_disk = sorted(
        str(path.relative_to(path.parent.parent).with_suffix("")) for path in demo.glob("VGGFace2/t*/n*/*.jpg")
    )
    assert sorted(keys) == on_disk
    assert len(keys) == 18
    assert [path.name for path in (demo / "VGGFace2" / "test").iterdir()] == ["n000008"]


def test_a_second_time_nothing_is_painted_and_other_options_are_refused(demo):
    before = tree(demo)
    write_demo_data(demo, identities=9, images=2, seed=1)
    assert tree(demo) == before
    with pytest.raises(DemoDataError, match="VGGFace2: exists and is generated with other options"):
        write_demo_data(demo, identities=9, images=2, seed=5)


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
