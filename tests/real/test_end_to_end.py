"""The reference's end-to-end scores and crops; needs both ``LRFR_REAL_DATA`` and ``LRFR_GOLDEN``."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import BENCHMARKS, read_benchmark
from benchmarks.engine.runner import Engine, run
from model.backbones import build_backbone
from model.embedder import Embedder
from pipeline.align import fit_similarity, template_points, warp
from tests.golden_weights import golden_state

DATA, GOLDEN = Path(os.environ["LRFR_REAL_DATA"]), Path(os.environ["LRFR_GOLDEN"])


def test_crops_equal_the_reference():
    """Its keys name people; the same pictures lie in VGGFace2's folder under numbers, found by their landmarks."""
    golden = np.load(GOLDEN / "align.npz", allow_pickle=False)
    rows = {}
    for path in (DATA / "VGGFace2" / "bb_landmark").glob("*.csv"):
        for line in path.read_text().splitlines()[1:]:
            name, *numbers = line.replace('"', "").split(",")
            rows[tuple(np.round(np.array(numbers, float), 2))] = DATA / "VGGFace2" / "train" / f"{name}.jpg"
    for line in (DATA / "LFW" / "LFW.csv").read_text().splitlines():
        name, *numbers = line.split(",")
        rows[tuple(np.round(np.array(numbers, float), 2))] = DATA / "LFW" / "lfw" / name
    matrices, good = fit_similarity(golden["landmarks"], template_points("seed", 128))
    assert good.all()
    assert np.abs(matrices - golden["matrix"]).max() < 1e-3
    differences = []
    for landmarks, matrix, aligned in zip(golden["landmarks"], matrices, golden["aligned"], strict=True):
        path = rows.get(tuple(np.round(landmarks.ravel().astype(float), 2)))
        if path is None:  # of a person whose picture is in neither layout
            continue
        image = cv2.imread(str(path))
        differences.append(np.abs(warp(image, matrix, 128)[..., ::-1].astype(int) - aligned))
    differences = np.stack(differences)
    assert len(differences) >= 12
    assert (differences <= 1).mean() >= 0.999
    assert differences.max() <= 3


def figures(result):
    """``lfw/accuracy@8`` and its like, as the golden file names them."""
    return {f"{result.benchmark}/{name}": value for name, value in result.metrics.items()}


def test_scores_equal_the_reference():
    """LFW at five resolutions, SCface at three distances, QMUL-SurvFace: one network, the whole chain."""
    expected = json.loads((GOLDEN / "e2e_spherenet4.json").read_text())
    counts = expected.pop("counts")
    backbone = build_backbone("spherenet4")
    backbone.load_state_dict(golden_state({name: value.shape for name, value in backbone.state_dict().items()}))
    engine = Engine(embed=Embedder(backbone))
    lfw, scface, qmul = (
        run(read_benchmark(name, DATA), engine, checkpoint={}, intervals=False) for name in ("lfw", "scface", "qmul")
    )
    found = {**figures(lfw), **figures(scface), **figures(qmul)}
    assert set(expected) <= set(found)
    assert len(expected) == 23
    for name, value in expected.items():
        kind = name.split("/")[1].partition("@")[0]
        assert found[name] == pytest.approx(value, abs=0.005 if kind in ("auc", "tar") else 0.01), name
    assert (lfw.counts["pairs"], qmul.counts["pairs"]) == (counts["lfw_pairs"], counts["qmul_pairs"])
    assert (scface.counts["gallery"], scface.counts["probes"]) == (counts["scface_gallery"], counts["scface_probes"])


def test_each_benchmark_embeds_each_image_and_preparation_once():
    """Of every LFW image five preparations at most, LR to LR included; of every other image one."""
    requests = {name: read_benchmark(name, DATA).requests for name in BENCHMARKS}
    assert {name: len(set(asked)) - len(asked) for name, asked in requests.items()} == dict.fromkeys(BENCHMARKS, 0)
    images = len({request.path for request in requests["lfw"]})
    assert images < len(requests["lfw"]) <= 5 * images
    assert {len({one.path for one in asked}) == len(asked) for name, asked in requests.items() if name != "lfw"} == {
        True
    }
