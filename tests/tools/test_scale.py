"""The scripts that measure cost against size."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import cv2
import matplotlib.image
import numpy as np
import pyarrow.parquet as pq
import pytest

from shards.index import ShardIndex, ShardReader
from tests.processes import REPOSITORY
from tools import cold_cache, made_set
from tools.costs import in_fresh_process, peak_mb, resident_mb
from tools.scale import Scaling, jittered_faces, measure_cold, write_chart


@pytest.fixture
def made(shard_set, tmp_path, monkeypatch):
    monkeypatch.setattr(made_set, "SHARD_ROWS", 50)
    monkeypatch.setattr(made_set, "CHUNK_ROWS", 80)
    made_set.make_set(shard_set, tmp_path / "made", 300)
    return tmp_path / "made"


def test_every_image_of_a_made_set_can_be_read(made):
    index = ShardIndex(made)
    assert (len(index), index.manifest.images, index.manifest.shards) == (300, 300, 6)
    assert index.manifest.identities == len(index.labels) == 128
    assert np.unique(index.shard).tolist() == [0, 1, 2, 3, 4, 5]
    assert len(np.unique(index.xxh3)) > 250  # of 45 JPEGs
    with ShardReader(index) as reader:
        for row in range(0, 300, 7):
            encoded = np.frombuffer(reader.image(row), np.uint8)
            assert cv2.imdecode(encoded, cv2.IMREAD_COLOR).shape == (128, 128, 3)


def test_a_made_index_resembles_a_built_one(made, shard_set):
    file = pq.ParquetFile(made / "index.parquet")
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [80, 80, 80, 60]
    table, built = file.read(), pq.read_table(shard_set / "index.parquet")
    assert table.schema == built.schema
    rows = table.to_pylist()
    assert [(row["label"], row["key"]) for row in rows] == sorted((row["label"], row["key"]) for row in rows)
    assert len({row["key"] for row in rows}) == 300
    assert all(row["key"].startswith(row["identity"] + "/") for row in rows)
    assert len({tuple(row["landmarks"]) for row in rows}) == 300


def test_a_fresh_process_does_not_count_the_memory_of_its_parent():
    ballast = np.ones(300_000_000, np.uint8)
    assert in_fresh_process(os.getpid) != os.getpid()
    assert 5 < in_fresh_process(resident_mb) <= in_fresh_process(peak_mb) + 1 < 250 < len(ballast) / 1e6 < resident_mb()


@pytest.mark.parametrize("counter", ["read_bytes of /proc/self/io", "pages in the cache afterwards"])
def test_a_cold_cache_fetches_at_most_twice_what_is_wanted(shard_set, monkeypatch, counter):
    if counter.startswith("pages"):
        monkeypatch.setattr(cold_cache, "_fetched_bytes", lambda: 0)
    index = ShardIndex(shard_set)
    rows = np.random.default_rng(0).choice(len(index), 20, replace=False)
    try:
        read = cold_cache.cold_read(index, rows)
    except cold_cache.UncountedError as error:
        pytest.skip(str(error))
    assert read.wanted == index.size[rows].sum()
    assert read.wanted < read.fetched < 2 * read.wanted
    assert not counter.startswith("pages") or read.counted == counter


@pytest.mark.parametrize(
    ("cached", "message"),
    [(4096, r"4,096 bytes of the shards of .* stay cached; try a folder on a disk"), (0, "changes neither")],
)
def test_a_file_system_that_cannot_be_measured_is_reported(shard_set, monkeypatch, capsys, cached, message):
    monkeypatch.setattr(cold_cache, "_cached_bytes", lambda path: cached)
    monkeypatch.setattr(cold_cache, "_fetched_bytes", lambda: 0)
    with pytest.raises(cold_cache.UncountedError, match=message):
        cold_cache.cold_read(ShardIndex(shard_set), np.array([3]))
    assert list(measure_cold(ShardIndex(shard_set), [4])) == []
    assert capsys.readouterr().err.startswith("cold reading is not measured: ")


def test_repeated_faces_differ_in_their_landmarks(vggface2):
    faces = jittered_faces(vggface2.parent, 100)
    assert {face.image.shape for face in faces} == {(160, 160, 3)}
    assert len({face.points.tobytes() for face in faces}) == 100


def test_exponents_and_chart(tmp_path):
    costs = {"opening seconds": [0.01, 1.0], "index MB": [5.0, 5.0], "peak MB": [6.0, 60.0]}
    scaling = Scaling(title="Doing x", unit="rows", sizes=[10, 1000], costs=costs, facts={"cores": "2"})
    assert [scaling.exponent(name) for name in costs] == [1.0, 0.0, 0.5]
    lines = scaling.table().splitlines()
    assert lines[2].split() == ["10", "0.01", "5", "6"]
    assert lines[4].split() == ["grows", "with", "the", "power", "1.00", "0.00", "0.50"]
    assert lines[5] == "cores: 2"
    write_chart([scaling, scaling], tmp_path / "scale.png")
    height, width = matplotlib.image.imread(tmp_path / "scale.png").shape[:2]
    assert width > 900
    assert height > 600


@pytest.mark.heavy
def test_the_script_measures_every_cost(vggface2, tmp_path):
    words = ["--quick", "--rounds", "1", "--root", vggface2.parent, "--json", "scale.json", "--chart", "scale.png"]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    process = subprocess.run(
        [sys.executable, REPOSITORY / "tools" / "scale.py", *words],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    found = json.loads((tmp_path / "scale.json").read_text())
    counted = len(found) == 5
    assert counted or "cold reading is not measured" in process.stderr
    sizes = [[250, 1000], [17066, 273066], [1000, 4000], [16, 64], [500, 2000]]
    assert [one["sizes"] for one in found] == (sizes if counted else [*sizes[:3], sizes[4]])
    for one in found:
        assert one["title"] in process.stdout
        assert all(len(values) == 2 and min(values) > 0 for values in one["costs"].values())
        assert set(one["exponents"]) == set(one["costs"])
    assert (tmp_path / "scale.png").read_bytes().startswith(b"\x89PNG")
    assert list(scratch.iterdir()) == []
