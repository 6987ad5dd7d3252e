"""The chain on real faces, from the folder that ``LRFR_REAL_DATA`` names (VGGFace2, QMUL-SurvFace and LFW in it)."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.datasets.lfw import read_lfw
from benchmarks.datasets.pair_set import read_pair_set
from benchmarks.engine.runner import Engine, run
from commands.diagnosis.data_sets import data_set_findings
from commands.diagnosis.findings import Level
from commands.diagnosis.layouts import find_layouts
from pipeline.align import fit_similarity, template_points, warp
from pipeline.build import BuildOptions, build, options_for
from pipeline.load.loader import Loader
from pipeline.prepare import prepare
from pipeline.sources.vggface2 import VGGFace2
from pipeline.spec import Preprocessing
from shards.index import ShardIndex, ShardReader
from shards.verify import verify
from tests.benchmarks.conftest import Recorder

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


def test_other_sources_give_the_same_images(index, tmp_path):
    """The shards read back as tars, and the photographs named by a list."""
    root = DATA / "VGGFace2"
    lines = [f"{path.relative_to(root)},{path.parent.name}" for path in sorted((root / "train").glob("*/*.jpg"))]
    (tmp_path / "faces.csv").write_text("\n".join(lines) + "\n")
    tables = VGGFace2().landmark_files(root)
    for source, options in {
        "webdataset": options_for("webdataset", root=index.root, out=tmp_path / "tars", aligned="seed", size=128),
        "list": options_for(
            "list", root=root, out=tmp_path / "list", lists=tmp_path / "faces.csv", landmarks=tables, workers=2
        ),
    }.items():
        build(options)
        other = ShardIndex(options.out)
        assert len(other) == len(index), source
        found = [pq.read_table(one.root / "index.parquet", columns=["key", "label", "xxh3"]) for one in (other, index)]
        assert found[0].equals(found[1]), source


def test_pairs_in_a_bin_file_score_as_lfw(tmp_path):
    """Crops of the network's own template and size, stored without loss, are the crops of LFW's photographs."""
    spec, lfw = Preprocessing(template="arcface", size=128), read_lfw(DATA / "LFW")
    rows, files = lfw.members["{}@128"].ravel().tolist(), {}
    for row in set(rows):
        (crop,) = prepare(lfw.requests[row].read(), [lfw.requests[row]], spec)
        files[row] = cv2.imencode(".png", crop[..., ::-1])[1]
    path = tmp_path / "lfw.bin"
    path.write_bytes(pickle.dumps(([files[row] for row in rows], lfw.genuine.tolist()), protocol=2))
    photographs, crops = (
        run(protocol, Engine(embed=Recorder(), spec=spec), checkpoint={}, intervals=False).metrics
        for protocol in (lfw, read_pair_set(path))
    )
    assert photographs["auc@128"] > 0.55
    assert {name: crops[name.replace("@128", "@full")] for name in photographs} == photographs


def test_doctor_finds_every_data_set_and_nothing_that_cannot_work():
    found = list(find_layouts(DATA))
    assert len(found) >= 2
    failed = [one.text for kind, folder in found for one in data_set_findings(kind, folder) if one.level is Level.FAIL]
    assert failed == []
