"""Cost against size: the sets that are made are sound, and what is counted is what was done."""

from __future__ import annotations

import json
import os

import cv2
import matplotlib.image
import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.report.document import as_text
from benchmarks.speed import cold, costs, made, scale
from benchmarks.speed.fresh import in_fresh_process, largest_mb, peak_mb, resident_mb
from benchmarks.speed.results import Scaling, write_chart, write_json
from benchmarks.speed.search import search_cost
from shards.index import ShardIndex, ShardReader


@pytest.fixture
def made_set(shard_set, tmp_path, monkeypatch):
    monkeypatch.setattr(made, "_PER_SHARD", 50)
    monkeypatch.setattr(made, "_AT_ONCE", 80)
    made.make_set(shard_set, tmp_path / "made", 300)
    return tmp_path / "made"


def test_every_image_of_a_made_set_can_be_read(made_set):
    index = ShardIndex(made_set)
    assert (len(index), index.manifest.images, index.manifest.shards) == (300, 300, 6)
    assert index.manifest.identities == len(index.labels) == 128
    assert np.unique(index.shard).tolist() == [0, 1, 2, 3, 4, 5]
    assert len(np.unique(index.xxh3)) > 250  # of 45 JPEGs
    with ShardReader(index) as reader:
        for row in range(0, 300, 7):
            encoded = np.frombuffer(reader.image(row), np.uint8)
            assert cv2.imdecode(encoded, cv2.IMREAD_COLOR).shape == (128, 128, 3)


def test_a_made_index_is_as_a_build_writes_it(made_set, shard_set):
    file = pq.ParquetFile(made_set / "index.parquet")
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [80, 80, 80, 60]
    table, real = file.read(), pq.read_table(shard_set / "index.parquet")
    assert table.schema == real.schema
    rows = table.to_pylist()
    assert [(row["label"], row["key"]) for row in rows] == sorted((row["label"], row["key"]) for row in rows)
    assert len({row["key"] for row in rows}) == 300
    assert all(row["key"].startswith(row["identity"] + "/") for row in rows)
    assert len({tuple(row["landmarks"]) for row in rows}) == 300


def test_a_fresh_process_is_one_and_its_memory_its_own():
    ballast = np.ones(200_000_000, np.uint8)
    assert in_fresh_process(os.getpid) != os.getpid()
    assert 5 < in_fresh_process(resident_mb) <= in_fresh_process(peak_mb) + 1 < 150 < len(ballast) / 1e6 < resident_mb()


def test_the_largest_process_may_be_a_child():
    assert largest_mb() >= peak_mb() >= resident_mb() - 1


def cold_read(index, rows):
    try:
        return cold.cold_read(index, rows)
    except cold.UncountedError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("counter", ["read_bytes of /proc/self/io", "pages in the cache afterwards"])
def test_a_cold_cache_fetches_at_most_twice_what_is_wanted(shard_set, monkeypatch, counter):
    if counter.startswith("pages"):
        monkeypatch.setattr(cold, "_fetched", lambda: 0)
    index = ShardIndex(shard_set)
    rows = np.random.default_rng(0).choice(len(index), 20, replace=False)
    read = cold_read(index, rows)
    assert read.wanted == index.size[rows].sum()
    assert read.wanted < read.fetched < 2 * read.wanted
    assert not counter.startswith("pages") or read.counted == counter


def test_what_stays_cached_is_not_counted(shard_set, monkeypatch):
    index = ShardIndex(shard_set)
    monkeypatch.setattr(os, "posix_fadvise", lambda *_: None)
    monkeypatch.setattr(cold, "_resident", lambda path: 4096)
    with pytest.raises(
        cold.UncountedError, match=r"4,096 bytes of the shards of .* stay cached; try a folder on a disk"
    ):
        cold.cold_read(index, np.array([3]))


def test_reading_without_a_trace_is_told(shard_set, monkeypatch):
    monkeypatch.setattr(cold, "_resident", lambda path: 0)
    monkeypatch.setattr(cold, "_fetched", lambda: 0)
    with pytest.raises(cold.UncountedError, match="leaves no trace"):
        cold.cold_read(ShardIndex(shard_set), np.array([3]))


def test_identification_is_scored_at_any_size():
    found = search_cost(40, 10, 2)
    assert list(found) == ["open set seconds", "open set MB", "closed set seconds", "closed set MB"]
    assert all(value > 0 for value in found.values())


def test_a_loader_is_started(made_set):
    found = costs.start_cost(made_set, 2)
    assert list(found) == ["opening seconds", "import seconds", "first batch seconds", "index MB", "index peak MB"]
    assert all(value > 0 for value in found.values())


def test_the_stage_gives_a_table_for_each_kind_of_work(vggface2, tmp_path, monkeypatch):
    monkeypatch.setattr(scale, "in_fresh_process", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(scale, "cold_read", lambda index, rows: cold.ColdRead(wanted=10, fetched=15, counted="x"))
    folder = tmp_path / "scratch"
    folder.mkdir()
    found = list(scale.time_scale(root=vggface2.parent, folder=folder, rounds=1, quick=True))
    assert [one.stage for one in found] == ["scale-build", "scale-source", "scale-loader", "scale-cold", "scale-search"]
    assert [one.sizes for one in found] == [[250, 1000], [17066, 273066], [1000, 4000], [16, 64], [500, 2000]]
    assert found[3].title == "Cold cache: 1.50 bytes read for one wanted"
    assert len(ShardIndex(folder / "base")) == 1000
    assert sorted(path.name for path in folder.iterdir()) == ["base", "built-250"]
    for one in found:
        assert {len(values) for values in one.costs.values()} == {2}
        assert one.facts


def test_cold_reading_that_is_not_counted_is_told(shard_set, monkeypatch, capsys):
    def refuse(index, rows):
        raise cold.UncountedError("a reason")

    monkeypatch.setattr(scale, "cold_read", refuse)
    assert list(scale._cold(ShardIndex(shard_set), [4])) == []
    assert capsys.readouterr().err == "bench speed scale: cold reading is not measured: a reason\n"


def test_faces_of_one_image_differ_in_their_landmarks(vggface2):
    faces = scale._faces(vggface2.parent, 100)
    assert len(faces) == 100
    assert {face.image.shape for face in faces} == {(160, 160, 3)}
    assert len({face.points.tobytes() for face in faces}) == 100


@pytest.mark.parametrize("linked", [False, True])
def test_repeated_files_may_be_links(vggface2, tmp_path, linked):
    faces = scale._faces(vggface2.parent, 3)
    tree = scale.write_vggface2(faces, tmp_path / "tree", images=8, grey=False, linked=linked)
    files = sorted((tree / "train").rglob("*.jpg"))
    assert len({path.stat().st_ino for path in files}) == (3 if linked else 8)
    assert [path.read_bytes() for path in files] == [files[number % 3].read_bytes() for number in range(8)]


SCALING = Scaling(
    stage="scale-x",
    title="Doing x",
    unit="rows",
    sizes=[10, 1000],
    costs={"opening seconds": [0.01, 1.0], "index MB": [5.0, 5.0], "peak MB": [6.0, 60.0]},
    facts={"cores": "2"},
)


def test_exponents():
    assert [round(SCALING.exponent(name), 6) for name in SCALING.costs] == [1.0, 0.0, 0.5]
    lines = as_text(SCALING.grid()).splitlines()
    assert lines[2].split() == ["10", "0.01", "5", "6"]
    assert lines[4].split() == ["grows", "with", "the", "power", "1.00", "0.00", "0.50"]


def test_json_and_chart(tmp_path):
    write_json([SCALING], tmp_path / "scale.json", quick=False)
    (content,) = json.loads((tmp_path / "scale.json").read_text())
    assert content["costs"] == SCALING.costs
    assert content["exponents"]["peak MB"] == pytest.approx(0.5)
    write_chart([SCALING, SCALING], tmp_path / "scale.png", quick=False)
    height, width = matplotlib.image.imread(tmp_path / "scale.png").shape[:2]
    assert width > 900
    assert height > 600
