"""LFW and XQLFW on generated faces: metrics, preparations, landmarks, errors."""

from __future__ import annotations

import os
import shutil

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks.datasets.lfw import read_lfw, read_xqlfw
from benchmarks.datasets.resolutions import RESOLUTIONS
from benchmarks.errors import AbsentError, ProtocolError
from pipeline.align import fit_similarity, template_points, warp
from pipeline.images.lookup import is_generated
from pipeline.spec import Preprocessing
from pipeline.tables.landmark_table import LandmarkError
from tests.benchmarks.runs import Recorder, bomb, cosine, score

XQLFW_IMAGES = "lfw_original_imgs_min_qual0.85variant11"


@pytest.fixture
def root(demo):
    return demo("LFW")


def lines_of(root):
    return [line.split("\t") for line in (root / "pairs.txt").read_text().splitlines()]


def landmarks_of(root):
    rows = [line.split(",") for line in (root / "LFW.csv").read_text().splitlines()]
    return {row[0]: np.array(row[1:], float).reshape(5, 2) for row in rows}


def seen_by_network(path, landmarks, down=None):
    """A naive preparation: OpenCV reads and warps, Pillow degrades."""
    matrix = fit_similarity(landmarks[None], template_points("seed", 128))[0][0]
    image = Image.fromarray(warp(cv2.imread(str(path)), matrix, 128)[..., ::-1])
    if down:
        image = image.resize((down, down), Image.Resampling.BICUBIC).resize((128, 128), Image.Resampling.BICUBIC)
    return np.asarray(image)


def test_metrics_equal_a_naive_evaluation(root):
    result = score("lfw", root)
    landmarks, pairs, embed = landmarks_of(root), lines_of(root)[1:], Recorder()
    assert len(pairs) == result.counts["pairs"] >= 40

    def embedding(name, number, down):
        key = f"{name}/{name}_{int(number):04d}.jpg"
        return embed(seen_by_network(root / "lfw" / key, landmarks[key], down)[None])[0]

    for prefix, size in [("", 128), ("", 8), ("", 20), ("lr-lr/", 12)]:
        down = None if size == 128 else size
        scores, genuine = [], []
        for fields in pairs:
            name, first, other, second = fields if len(fields) == 4 else (fields[0], fields[1], fields[0], fields[2])
            scores.append(cosine(embedding(name, first, down if prefix else None), embedding(other, second, down)))
            genuine.append(len(fields) == 3)
        scores, genuine = np.array(scores), np.array(genuine)
        better = (scores[genuine][:, None] > scores[~genuine]).mean()
        assert result.metrics[f"{prefix}auc@{size}"] == pytest.approx(better, abs=2e-3)
        samples = result.settings[f"{prefix}{{}}@{size}"]
        np.testing.assert_allclose(samples.scores, scores, atol=1e-4)
        assert np.array_equal(samples.genuine, genuine)


def test_names_of_metrics_and_their_intervals(root):
    result = score("lfw", root, intervals=True)
    expected = {f"{figure}@{size}" for figure in ("accuracy", "std", "auc", "eer") for size in (8, 12, 16, 20, 128)}
    expected |= {f"lr-lr/{figure}@{size}" for figure in ("accuracy", "std", "auc", "eer") for size in (8, 12, 16, 20)}
    assert set(result.metrics) == set(result.intervals) == expected
    for name, (low, high) in result.intervals.items():
        assert low <= result.metrics[name] <= high, name
    assert result.main == "accuracy@8"


def test_each_image_and_preparation_is_embedded_once(root):
    recorder = Recorder()
    result = score("lfw", root, recorder, batch_size=7)
    images = {(name, number) for fields in lines_of(root)[1:] for name, number in _members(fields)}
    assert len(recorder.images) == result.counts["embedded"] == len(images) * (1 + len(RESOLUTIONS))


def _members(fields):
    return [(fields[0], fields[1]), (fields[0] if len(fields) == 3 else fields[2], fields[-1])]


def test_a_list_of_standard_size_needs_only_distinct_preparations(tmp_path):
    """LFW has 6,000 pairs of 7,701 images, of which 4,576 are second images: 26,005 passes for HR to LR, at most 18,304 more for LR to LR."""
    rng = np.random.default_rng(0)
    people = [f"P{number}" for number in range(1500)]
    lines = ["10\t300"]
    for _ in range(10):
        for kind in (True, False):
            for _ in range(300):
                name, other = rng.choice(people, 2, replace=False)
                first, second = rng.choice(range(1, 6), 2, replace=False)
                lines.append(f"{name}\t{first}\t{second}" if kind else f"{name}\t{first}\t{other}\t{second}")
    (tmp_path / "lfw").mkdir()
    (tmp_path / "pairs.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "LFW.csv").write_text("".join(f"P1/P1_000{n}.jpg" + ",1.5" * 10 + "\n" for n in range(1, 6)))
    protocol = read_lfw(tmp_path)
    members = [_members(line.split("\t")) for line in lines[1:]]
    images, seconds = {one for pair in members for one in pair}, {pair[1] for pair in members}
    assert len(protocol.requests) == len(set(protocol.requests)) == 5 * len(images)
    assert len(protocol.requests) <= (len(images) + 4 * len(seconds)) + 4 * len(seconds)


def test_other_tables_and_places_give_the_same_scores(root, tmp_path):
    expected = score("lfw", root).metrics
    landmarks = landmarks_of(root)
    rows = [f'"{key[:-4]}",' + ",".join(map(repr, points.ravel().tolist())) for key, points in landmarks.items()]
    ours = tmp_path / "ours.csv"
    ours.write_text("\n".join(["NAME_ID,P1X,P1Y,P2X,P2Y,P3X,P3Y,P4X,P4Y,P5X,P5Y", *rows]) + "\n")
    index = tmp_path / "index.parquet"
    values = pa.array([points.ravel().tolist() for points in landmarks.values()], pa.list_(pa.float32()))
    pq.write_table(pa.table({"key": [key[:-4] for key in landmarks], "landmarks": values}), index)
    folders = tmp_path / "windows.csv"
    text = (root / "LFW.csv").read_text().splitlines()
    folders.write_text("".join("D:\\lfw\\" + line.replace("/", "\\", 1) + "\n" for line in text))
    for table in (ours, index, folders):
        assert score("lfw", root, landmarks=[table]).metrics == pytest.approx(expected, abs=1e-3)
    (root / "LFW.csv").rename(root.parent / "lfw.CSV")
    (root / "pairs.txt").rename(root / "lfw" / "Pairs.TXT")
    (root / "lfw").rename(root / "x")
    (root / "x").rename(root / "LFW")
    assert score("lfw", root).metrics == expected
    assert score("lfw", root.parent).metrics == expected


def test_the_template_of_the_network_is_used(root):
    spec = Preprocessing(template="arcface")
    recorder = Recorder()
    centred = score("lfw", root, recorder, spec=spec)
    assert centred.preprocessing == spec
    plain = Recorder()
    score("lfw", root, plain)
    assert not np.array_equal(recorder.images[0], plain.images[0])


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (
            lambda root: shutil.rmtree(root),
            AbsentError,
            "no lfw in it; expected LFW's images, lfw/<Name>/<Name>_0001.jpg",
        ),
        (lambda root: (root / "pairs.txt").unlink(), ProtocolError, "pairs.txt: not found in "),
        (lambda root: (root / "LFW.csv").unlink(), ProtocolError, "LFW.csv: not found in "),
        (
            lambda root: (root / "LFW.csv").write_text("a,1,2\n"),
            LandmarkError,
            "LFW.csv: line 1: found 'a,1,2', expected",
        ),
    ],
)
def test_a_missing_or_malformed_file_gives_a_one_line_error(root, damage, error, message):
    damage(root)
    with pytest.raises(error) as caught:
        read_lfw(root)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_landmarks_are_listed_by_image(root, capsys):
    lines = (root / "LFW.csv").read_text().splitlines()
    (root / "LFW.csv").write_text("\n".join(lines[1:]) + "\n")
    lost = lines[0].split(",")[0]
    with pytest.raises(ProtocolError, match="bench lfw: 1 unusable image, listed above"):
        score("lfw", root)
    assert f"{root}/lfw/{lost}: no row for {lost.split('/')[1][:-4]} in LFW.csv" in capsys.readouterr().err
    partial = score("lfw", root, allow_missing=True)
    assert [path for path, _ in partial.missing] == [f"{root}/lfw/{lost}"]
    name, number = lost.split("/")[0], int(lost[-8:-4])
    with_it = [fields for fields in lines_of(root)[1:] if (name, str(number)) in _members(fields)]
    assert partial.counts["left_out"] == len(with_it) > 0
    assert len(partial.settings["{}@8"].scores) == partial.counts["pairs"] - len(with_it)


def test_landmarks_for_larger_images_are_reported(root, capsys):
    rows = [f"{name},{','.join(map(str, 3 * points.ravel()))}" for name, points in landmarks_of(root).items()]
    (root / "LFW.csv").write_text("\n".join(rows))
    with pytest.raises(ProtocolError, match="correct the landmark table"):
        score("lfw", root)
    assert "bench lfw: the points of 12 of 12 images tried end far outside their image (" in capsys.readouterr().err


def test_xqlfw_uses_lfw_landmarks_scaled_to_its_images(demo, root):
    other = demo("XQLFW")
    protocol = read_xqlfw(other)
    landmarks = landmarks_of(root)
    recorder = Recorder()
    result = score("xqlfw", other, recorder)
    assert set(result.metrics) == {"accuracy", "std", "auc", "eer"}
    assert len(recorder.images) == len(protocol.requests)
    for request, seen in zip(protocol.requests[:10], recorder.images, strict=False):
        key = f"{request.path.parent.name}/{request.path.name}"
        assert np.abs(seen.astype(int) - seen_by_network(request.path, landmarks[key])).max() <= 1
    small = protocol.requests[0].path
    before = recorder.images[0].astype(int)
    cv2.imwrite(str(small), cv2.resize(cv2.imread(str(small)), (125, 125), interpolation=cv2.INTER_AREA))
    recorder = Recorder()
    score("xqlfw", other, recorder)
    assert np.abs(recorder.images[0].astype(int) - before).mean() < 12  # the same face at the same position


def test_xqlfw_s_own_landmarks_are_not_scaled(demo, root):
    other = demo("XQLFW")
    shutil.copy(root / "LFW.csv", other / "XQLFW.csv")
    assert all(request.points_size is None for request in read_xqlfw(other).requests)
    shutil.rmtree(root)
    (other / "XQLFW.csv").unlink()
    with pytest.raises(ProtocolError, match=r"LFW\.csv: not found in .*expected landmarks: XQLFW\.csv, or LFW's"):
        read_xqlfw(other)


@pytest.mark.parametrize("suffix", [".jpeg", ".JPEG", ".png", ".bmp"])
def test_images_of_every_extension_are_found(root, suffix):
    expected = [request.path for request in read_lfw(root).requests]
    for path in set(expected):
        path.rename(path.with_suffix(suffix))
    assert [request.path for request in read_lfw(root).requests] == [path.with_suffix(suffix) for path in expected]


def test_folders_of_people_are_found_in_any_case(root):
    expected = read_lfw(root).requests
    for path in (root / "lfw").iterdir():
        path.rename(path.with_name(path.name.upper()))
    found = read_lfw(root).requests
    assert all(request.path.exists() for request in found)
    assert [request.path.name for request in found] == [request.path.name for request in expected]


@pytest.mark.parametrize("name", ["lfw", "xqlfw"])
def test_a_table_of_other_images_is_an_error_before_embedding(demo, root, name, capsys):
    table = demo("SCface") / "scface_mugshot.csv"
    other = root if name == "lfw" else demo("XQLFW")
    with pytest.raises(LandmarkError) as error:
        score(name, other, landmarks=[table])
    assert str(error.value).startswith(f"{table}: no landmarks for any image of {name.upper()}, for example ")
    assert str(error.value).endswith("; name the right table with --landmarks")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("original", ["png", "fifo"])
def test_an_unreadable_lfw_image_is_assumed_to_have_lfw_s_size(demo, root, original):
    other = demo("XQLFW")
    request = read_xqlfw(other).requests[0]
    path = root / "lfw" / request.path.parent.name / request.path.name
    Image.new("RGB", (70, 60)).save(path)
    assert read_xqlfw(other).requests[0].points_size == (70, 60)
    path.unlink()
    path.write_bytes(bomb()) if original == "png" else os.mkfifo(path)
    assert read_xqlfw(other).requests[0].points_size == (250, 250)


@pytest.mark.parametrize("below", ["", "LFW", "LFW/lfw"])
def test_generated_faces_are_detected_from_every_root(root, below):
    assert is_generated(read_lfw(root.parent / below).root)
    assert read_lfw(root.parent / below).root == root


def test_the_error_of_a_missing_table_names_no_folder_above_the_root(root):
    (root / "LFW.csv").unlink()
    with pytest.raises(ProtocolError) as error:
        read_lfw(root)
    assert str(error.value).startswith(f"LFW.csv: not found in {root}, {root}/lfw; expected LFW's landmarks")


def test_a_root_that_is_a_file_is_an_error(root):
    with pytest.raises(AbsentError, match=r"pairs\.txt: not a folder; expected LFW's images"):
        read_lfw(root / "pairs.txt")
