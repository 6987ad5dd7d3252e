"""QMUL-SurvFace verification on generated data: the protocol, the result, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from benchmarks.qmul import TEST_SET, bench_qmul, read_pairs
from benchmarks.report import print_table, write_report
from benchmarks.runner import ProtocolError
from pipeline.synthetic import DemoOptions, _write_qmul
from shards.schema import Preprocessing

FACTS = {"path": "x.pt", "step": 7, "backbone": "spherenet4"}


@pytest.fixture(scope="session")
def _root(tmp_path_factory):
    root = tmp_path_factory.mktemp("qmul") / "QMUL-SurvFace"
    _write_qmul(root, DemoOptions(identities=16, images=4, seed=0))
    return root


@pytest.fixture
def root(_root, tmp_path):
    return Path(shutil.copytree(_root, tmp_path / "QMUL-SurvFace"))


class Recorder:
    """Embeds by mean colour and remembers what it was given."""

    def __init__(self):
        self.images = []

    def __call__(self, images):
        assert images.dtype == np.uint8
        self.images.extend(images)
        return images.reshape(len(images), -1, 3).mean(1) - 128.0


def score(root, embed=None, stated=None, **options):
    return bench_qmul(root, embed or Recorder(), stated=stated, checkpoint=FACTS, **options)


def test_each_distinct_image_is_embedded_once_resized_by_pillow(root):
    recorder = Recorder()
    result = score(root, recorder, batch_size=7)
    pairs = read_pairs(root)
    assert len(recorder.images) == len(pairs.paths) == result.counts["embedded"] == len(set(pairs.paths))
    for path, seen in zip(pairs.paths, recorder.images, strict=True):
        with Image.open(path) as image:
            assert np.array_equal(seen, np.asarray(image.convert("RGB").resize((128, 128), Image.Resampling.BICUBIC)))


def test_pairs_are_those_of_the_lists(root):
    pairs = read_pairs(root)
    names = [
        [str(cell[0]) for cell in row]
        for kind in ("positive", "negative")
        for row in scipy.io.loadmat(root / TEST_SET / f"{kind}_pairs_names.mat")[f"{kind}_pairs_names"]
    ]
    assert [[pairs.paths[member].name for member in pair] for pair in pairs.members] == names
    assert pairs.genuine.sum() == len(names) // 2
    same = pairs.identities[pairs.members[:, 0]] == pairs.identities[pairs.members[:, 1]]
    assert np.array_equal(same, pairs.genuine)
    for kind in (pairs.genuine, ~pairs.genuine):
        assert (np.diff(pairs.folds[kind]) >= 0).all()
        assert set(pairs.folds[kind]) == set(range(10))


def test_scores_are_cosines_and_figures_follow(root):
    result = score(root)
    pairs, embed = read_pairs(root), Recorder()
    embedded = []
    for path in pairs.paths:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB").resize((128, 128), Image.Resampling.BICUBIC))
        embedded.append(embed(pixels[None])[0])
    scores = np.array(
        [
            embedded[a] @ embedded[b] / (np.linalg.norm(embedded[a]) * np.linalg.norm(embedded[b]))
            for a, b in pairs.members
        ]
    )
    better = (scores[pairs.genuine][:, None] > scores[~pairs.genuine]).mean()
    assert result.metrics["auc"] == pytest.approx(better, abs=1e-4)
    assert set(result.metrics) == {
        "tar@far=0.3",
        "tar@far=0.1",
        "tar@far=0.01",
        "tar@far=0.001",
        "auc",
        "accuracy",
        "std",
    }
    for name, (low, high) in result.intervals.items():
        assert low <= high
        assert 0 <= result.metrics[name] <= 1
    assert result.intervals["auc"][0] < result.metrics["auc"] < result.intervals["auc"][1]


def test_the_result_as_json_and_report(root, tmp_path):
    result = score(root)
    path = write_report(result, tmp_path / "report")
    content = json.loads((tmp_path / "report" / "qmul.json").read_text())
    assert {"benchmark", "metrics", "intervals", "counts", "checkpoint", "preprocessing", "versions"} <= set(content)
    assert content["metrics"] == result.metrics
    assert content["preprocessing"] == Preprocessing().to_dict()
    assert content["checkpoint"] == FACTS
    assert content["data"] == str(root)
    text = path.read_text()
    assert f"{100 * result.metrics['auc']:.2f}" in text
    assert "![ROC](qmul-roc.png)" in text
    with Image.open(tmp_path / "report" / "qmul-roc.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 10


def test_generated_faces_are_called_so(root):
    (root / "generated.json").write_text("{}")
    assert f"data: {root} (generated faces)" in print_table(score(root))


def test_the_printed_table(root):
    result = score(root)
    lines = print_table(result).splitlines()
    assert lines[0].split("  ")[0] == "QMUL-SurvFace, %"
    assert lines[0].split()[-1] == "AUC"
    assert lines[2].startswith("spherenet4, step 7")
    assert lines[2].split()[-1] == f"{100 * result.metrics['auc']:.2f}"
    assert [line.split()[-1] for line in lines[4:7]] == ["80.03", "80.06", "82.17"]
    assert len({len(line) for line in lines[:7]}) == 1


def test_file_names_may_differ_in_case_and_the_folder_may_be_nested(root, tmp_path):
    expected = score(root).metrics
    (root / TEST_SET).rename(root / TEST_SET.lower())
    images = root / TEST_SET.lower() / "verification_images"
    images.rename(images.with_name("Verification_Images"))
    for path in images.with_name("Verification_Images").iterdir():
        path.rename(path.with_suffix(".JPG"))
    (tmp_path / "outer").mkdir()
    root.rename(tmp_path / "outer" / "QMUL-SurvFace")
    assert score(tmp_path / "outer").metrics == expected


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"size": 112}, "size: checkpoint 112, benchmark 128"),
        ({"degradation": "pillow-nearest"}, "degradation: checkpoint 'pillow-nearest', benchmark 'pillow-bicubic'"),
        (
            {"color": "BGR", "mean": 0.0},
            "color: checkpoint 'BGR', benchmark 'RGB'; mean: checkpoint 0.0, benchmark 0.5",
        ),
    ],
)
def test_other_preprocessing_is_refused_and_it_says_how(root, changes, says):
    with pytest.raises(ProtocolError) as error:
        score(root, stated={**Preprocessing().to_dict(), **changes})
    assert f"bench qmul: x.pt: preprocessing disagrees ({says})" in str(error.value)


def test_the_alignment_template_plays_no_part(root):
    stated = Preprocessing(template="arcface").to_dict()
    assert score(root, stated=stated).metrics == score(root).metrics


def test_an_unknown_spec_is_refused(root):
    with pytest.raises(ProtocolError, match=r"x\.pt: preprocessing spec: fields \['flip'\] are missing or unknown"):
        score(root, stated={**Preprocessing().to_dict(), "flip": True})


def mat(root, kind="positive"):
    return root / TEST_SET / f"{kind}_pairs_names.mat"


def first_image(root):
    return sorted((root / TEST_SET / "verification_images").iterdir())[0]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda root: shutil.rmtree(root),
            "no Face_Verification_Test_Set in it; give the QMUL-SurvFace folder with --root",
        ),
        (lambda root: mat(root).unlink(), "positive_pairs_names.mat: not found; expected the pair list"),
        (lambda root: mat(root).write_bytes(b"nonsense"), "positive_pairs_names.mat: not a readable MATLAB 5 file"),
        (
            lambda root: mat(root).write_bytes(mat(root).read_bytes()[:300]),
            "positive_pairs_names.mat: not a readable MATLAB 5 file",
        ),
        (
            lambda root: scipy.io.savemat(mat(root), {"pairs": np.zeros((2, 2))}),
            "positive_pairs_names.mat: holds pairs, expected the variable positive_pairs_names",
        ),
        (
            lambda root: scipy.io.savemat(mat(root), {"positive_pairs_names": np.zeros((2, 3))}),
            "positive_pairs_names has shape (2, 3), expected (pairs, 2) cells of file names",
        ),
        (
            lambda root: scipy.io.savemat(mat(root), {"positive_pairs_names": np.zeros((9, 2))}),
            "9 pairs, the protocol's 10 folds need at least as many",
        ),
        (
            lambda root: scipy.io.savemat(mat(root), {"positive_pairs_names": np.zeros((20, 2))}),
            "a cell holds float64 of size 1, expected one file name",
        ),
        (lambda root: shutil.rmtree(root / TEST_SET / "verification_images"), "verification_images: not found"),
        (lambda root: first_image(root).unlink(), "1_cam1_1.jpg: not found, but the pair lists name it"),
        (lambda root: first_image(root).write_bytes(b"nonsense"), "1_cam1_1.jpg: cannot be decoded"),
        (
            lambda root: first_image(root).write_bytes(first_image(root).read_bytes()[:200]),
            "1_cam1_1.jpg: cannot be decoded",
        ),
    ],
)
def test_bad_data_gives_one_line(root, damage, message):
    damage(root)
    with pytest.raises(ProtocolError) as error:
        score(root)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_compressed_mat_file_gives_one_line_wherever_it_is_damaged(root):
    content = scipy.io.loadmat(mat(root))["positive_pairs_names"]
    scipy.io.savemat(mat(root), {"positive_pairs_names": content}, do_compression=True)
    good = mat(root).read_bytes()
    damaged = [good[:cut] for cut in range(130, len(good), 7)]
    damaged += [good[:at] + bytes([good[at] ^ 0x40]) + good[at + 1 :] for at in range(128, len(good), 7)]
    assert len(damaged) > 50
    refused = 0
    for data in damaged:
        mat(root).write_bytes(data)
        try:
            read_pairs(root)
        except ProtocolError:
            refused += 1
    assert refused > 0.9 * len(damaged)


def test_embeddings_that_are_not_finite_are_refused(root):
    with pytest.raises(ProtocolError, match="the network's embeddings are not finite"):
        score(root, lambda images: np.full((len(images), 4), np.nan, np.float32))
