"""Faults planted among generated faces are found, by an embedder that was fitted to the set with its faults."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from benchmarks import read_benchmark
from benchmarks.audit.run import audit_set
from benchmarks.engine.runner import Engine
from pipeline.build import build, options_for
from pipeline.demo.generate import write_demo_data
from shards.index import ShardIndex
from tools.audit_proof import plant, scores
from tools.discriminant import Discriminant
from tools.planted_faults import Shares

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    write_demo_data(folder, identities=100, images=10, seed=2, layouts=["VGGFace2", "LFW"])
    return folder


def audited(root, folder, shares):
    """What was planted, what was found, and right, found and planted of each kind."""
    truth = plant(root, folder, 2, shares)
    tables = sorted((folder / "VGGFace2" / "bb_landmark").glob("*.csv"))
    build(options_for("vggface2", root=folder / "VGGFace2", landmarks=tables, out=folder / "shards", workers=2))
    engine = Engine(embed=Discriminant(ShardIndex(folder / "shards")))
    audit_set(folder / "shards", engine, folder / "audit", [read_benchmark("lfw", root)], {})
    rows = pq.read_table(folder / "audit" / "audit.parquet").to_pylist()
    return (
        truth,
        rows,
        {name: (int(planted), int(found), *shares) for name, planted, found, *shares in scores(truth, rows)},
    )


def test_planted_faults_are_found_and_hardly_anything_else(root, tmp_path):
    truth, _, found = audited(root, tmp_path, Shares())
    assert min(map(len, (truth.wrong, truth.copies, truth.test_images))) > 15
    floors = {  # precision and recall, percent; of people of LFW there are only ten
        "wrong labels": (90, 35),
        "wrong labels, excluded": (95, 30),
        "one person, two names": (75, 60),
        "one photograph twice": (90, 40),
        "photographs of LFW": (90, 40),
        "people of LFW": (60, 80),
    }
    assert found.keys() == floors.keys()
    for name, (precision, recall) in floors.items():
        assert found[name][1] > 0, name
        assert float(found[name][2]) >= precision, (name, found[name])
        assert float(found[name][3]) >= recall, (name, found[name])


def test_hardly_anything_is_found_where_nothing_is_planted(root, tmp_path):
    none = Shares(wrong_labels=0, split_identities=0, copies=0, test_people=0)
    _, rows, _ = audited(root, tmp_path, none)
    assert len(rows) <= 5  # some painted people look alike
    assert not [row for row in rows if row["excluded"] and row["key"]]
