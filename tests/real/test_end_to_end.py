"""The reference's end-to-end scores and crops; needs both ``LRFR_REAL_DATA`` and ``LRFR_GOLDEN``."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.qmul import bench_qmul
from model.backbones import build_backbone
from model.embed import Embedder
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


def test_qmul_scores_equal_the_reference():
    expected = json.loads((Path(os.environ["LRFR_GOLDEN"]) / "e2e_spherenet4.json").read_text())
    backbone = build_backbone("spherenet4")
    backbone.load_state_dict(golden_state({name: value.shape for name, value in backbone.state_dict().items()}))
    result = bench_qmul(DATA / "QMUL-SurvFace", Embedder(backbone), stated=None, checkpoint={})
    compared = {name: value for name, value in result.metrics.items() if f"qmul/{name}" in expected}
    assert len(compared) == 5
    assert compared == pytest.approx({name: expected[f"qmul/{name}"] for name in compared}, abs=0.005)
    assert result.counts["pairs"] == expected["counts"]["qmul_pairs"]
