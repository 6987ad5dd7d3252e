"""The chain on real faces, from the folder that ``LRFR_REAL_DATA`` names (VGGFace2 and QMUL-SurvFace in it)."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from commands.diagnosis.data_sets import data_set_findings
from commands.diagnosis.findings import Level
from commands.diagnosis.layouts import find_layouts
from pipeline.align import fit_similarity, template_points, warp
from pipeline.build import BuildOptions, build
from pipeline.load.loader import Loader
from pipeline.sources.vggface2 import VGGFace2
from pipeline.spec import Preprocessing
from shards.index import ShardIndex, ShardReader
from shards.verify import verify

DATA = Path(os.environ["LRFR_REAL_DATA"])


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    out = tmp_path_factory.mktemp("real") / "shards"
    root = DATA / "VGGFace2"
    files = tuple(VGGFace2().landmark_files(root))
    build(BuildOptions(root=root, landmarks=files, out=out, preprocessing=Preprocessing(), workers=2))
    return ShardIndex(out)


def test_every_row_is_stored_and_sound(index):
    rows = sum(len(path.read_text().splitlines()) - 1 for path in (DATA / "VGGFace2" / "bb_landmark").glob("*.csv"))
    assert index.manifest.rows == index.manifest.images == rows > 1000
    assert list(verify(index.root, full=True)) == []


def test_stored_crops_are_the_reference_s_warp(index):
    table = dict(
        line.replace('"', "").split(",", 1)
        for path in (DATA / "VGGFace2" / "bb_landmark").glob("*.csv")
        for line in path.read_text().splitlines()[1:]
    )
    with ShardReader(index) as reader:
        for row in range(0, len(index), len(index) // 50):
            key = index.key(row)
            landmarks = np.array(table[key].split(","), float).reshape(1, 5, 2)
            matrix = fit_similarity(landmarks, template_points("seed", 128))[0][0]
            crop = warp(cv2.imread(str(DATA / "VGGFace2" / "train" / f"{key}.jpg")), matrix, 128)
            stored = cv2.imdecode(np.frombuffer(reader.image(row), np.uint8), cv2.IMREAD_COLOR)
            assert np.abs(stored.astype(int) - crop).mean() < 2.0  # JPEG quality 95


def test_the_loader_feeds_them(index):
    with Loader(index, batch_size=64) as loader:
        batch = next(loader)
    assert batch.images.shape == (4, 64, 128, 128, 3)
    assert 20 < batch.images.float().std() < 110


def test_doctor_finds_every_data_set_and_nothing_that_cannot_work():
    found = list(find_layouts(DATA))
    assert len(found) >= 2
    failed = [one.text for kind, folder in found for one in data_set_findings(kind, folder) if one.level is Level.FAIL]
    assert failed == []
