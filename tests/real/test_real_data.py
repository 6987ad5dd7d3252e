"""The chain on real faces, from the folder that ``LRFR_REAL_DATA`` names (VGGFace2, QMUL-SurvFace and LFW in it)."""

from __future__ import annotations

import dataclasses
import os
import pickle
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.datasets.identify import read_identification
from benchmarks.datasets.lfw import read_lfw
from benchmarks.datasets.pair_set import read_pair_set
from benchmarks.datasets.scface import read_scface
from benchmarks.engine.identities import ImageRows
from benchmarks.engine.parquet_writer import embed_images
from benchmarks.engine.runner import Engine, run
from benchmarks.search.run import search_tables
from benchmarks.search.scored_pairs import pairs_of_tables
from commands.diagnosis.data_sets import data_set_findings
from commands.diagnosis.findings import Level
from commands.diagnosis.layouts import find_layouts
from pipeline.align import fit_similarity, template_points, warp
from pipeline.build import BuildOptions, build, options_for
from pipeline.load.loader import Loader
from pipeline.prepare import prepare
from pipeline.sources.folders import find_images
from pipeline.sources.vggface2 import VGGFace2
from pipeline.spec import Preprocessing
from shards.index import ShardIndex, ShardReader
from shards.verify import verify
from tests.benchmarks.runs import Recorder

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


def test_lists_of_pairs_score_as_lfw(tmp_path):
    """LFW's own list, and its pairs as paths, with the same intervals: at full size, and at all sizes."""
    lfw, engine = read_lfw(DATA / "LFW"), Engine(embed=Recorder())
    reference = run(lfw, engine, checkpoint={})
    paths = [request.path.relative_to(DATA / "LFW" / "lfw") for request in lfw.requests]
    pairs = zip(lfw.members["{}@128"].tolist(), lfw.genuine.tolist(), strict=True)
    lines = [f"{paths[first]},{paths[second]},{int(same)}" for (first, second), same in pairs]
    (tmp_path / "pairs.csv").write_text("\n".join(lines) + "\n")
    assert len(reference.metrics) >= 27
    for path in (tmp_path / "pairs.csv", DATA / "LFW" / "pairs.txt"):
        protocol = read_pair_set(path, root=DATA / "LFW" / "lfw", landmarks=[DATA / "LFW" / "LFW.csv"])
        mine = run(protocol, engine, checkpoint={})
        for name, value in reference.metrics.items():
            assert mine.metrics[name.replace("@128", "@full")] == value, name
            assert mine.intervals[name.replace("@128", "@full")] == reference.intervals[name], name


def laid_out(scface, search, folder, write):
    """Writes the gallery and the probes of a search as folders of people."""
    for role, rows, ids in (("known", search.gallery, search.gallery_ids), ("found", search.probes, search.probe_ids)):
        for row, subject in zip(rows.tolist(), ids.tolist(), strict=True):
            path = folder / role / f"{subject:03d}" / scface.requests[row].path.name
            path.parent.mkdir(parents=True, exist_ok=True)
            write(scface.requests[row], path)
    return folder / "known", folder / "found"


@pytest.mark.parametrize("distance", [1, 2, 3])
def test_folders_of_people_score_as_scface(tmp_path, distance):
    """Crops as SCface's protocol makes them; and photographs, against the protocol without its small crops."""
    scface, setting, engine = read_scface(DATA / "SCface"), f"{{}}@d{distance}", Engine(embed=Recorder())

    def crop(request, path):
        (made,) = prepare(request.read(), [request], Preprocessing())
        cv2.imwrite(str(path.with_suffix(".png")), made[..., ::-1])

    search = scface.searches[setting]
    crops = laid_out(scface, search, tmp_path / "crops", crop)
    links = laid_out(scface, search, tmp_path / "links", lambda request, path: os.symlink(request.path, path))
    tables = [DATA / "SCface" / name for name in ("scface_mugshot.csv", f"scface_distance{distance}.csv")]
    whole = dataclasses.replace(scface, requests=[dataclasses.replace(one, side=None) for one in scface.requests])
    for protocol, mine in (
        (scface, read_identification(*crops, aligned="seed", sizes=())),
        (whole, read_identification(*links, landmarks=tables, sizes=())),
    ):
        theirs, ours = (run(one, engine, checkpoint={}, intervals=False) for one in (protocol, mine))
        assert ours.metrics["rank1@full"] == theirs.metrics[f"rank1@d{distance}"]
        assert ours.settings["{}@full"].ranks.tolist() == theirs.settings[setting].ranks.tolist()
        assert len(ours.settings["{}@full"].ranks) > 100


def test_doctor_finds_every_data_set_and_nothing_that_cannot_work():
    found = list(find_layouts(DATA))
    assert len(found) >= 2
    failed = [one.text for kind, folder in found for one in data_set_findings(kind, folder) if one.level is Level.FAIL]
    assert failed == []


def test_a_gallery_of_mugshots_is_searched_and_calibrated(tmp_path):
    """Thumbnails instead of a network: mates rank better than chance, and their likelihood ratios are higher."""
    database, tables = DATA / "SCface" / "SCface_database", []
    for folder, names in (("mugshot_frontal_original_all", "mugshot"), ("surveillance_cameras_all", "distance[123]")):
        landmarks = sorted((DATA / "SCface").glob(f"scface_{names}.csv"))
        images = find_images([database / folder]).paths
        tables.append(tmp_path / f"{folder}.parquet")
        metadata = {"digest": "x", "preprocessing": "{}"}
        engine, facts = Engine(embed=Recorder()), {"rows": ImageRows("prefix"), "metadata": metadata}
        assert embed_images(engine, images, tables[-1], landmarks=landmarks, **facts) == len(images) >= 130
    calibration = pairs_of_tables(*tables).calibrate()
    assert calibration.fitted.min_cllr <= calibration.fitted.cllr < 1
    summary = search_tables(*tables, tmp_path / "m.parquet", top=130, calibration=calibration)
    assert (summary.gallery, summary.probes, summary.same_path) == (130, 130 * 15, 0)
    found = pq.read_table(tmp_path / "m.parquet").to_pandas()
    mates = found["identity"] == found["probe_identity"]
    assert mates.sum() == 130 * 15
    assert (found["rank"][mates] == 1).mean() > 2 / 130
    assert found["log10_lr"][mates].mean() > found["log10_lr"][~mates].mean()
