"""Groups: every image once, those of a group together, whatever builds them; builds without groups stay as they were."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.build import Part, build, build_part
from pipeline.build.groups import _grouped, grouped_shards
from pipeline.build.plan import make_plan
from pipeline.sources.file_readers import ListedImages
from pipeline.sources.source import Rows
from shards.errors import ShardError
from shards.index import ShardIndex
from shards.store import Store
from shards.verify import verify
from tests.pipeline.build.made import contents, image
from tests.shard_sets import build_options

FROZEN_SPREAD = [[0, 2, 11, 9], [1, 8, 5, 4], [3, 10, 6, 7]]
FROZEN_GROUPS = [[2, 8, 1, 7], [9, 3, 11, 5], [0, 6, 4, 10]]


def rows_of(labels):
    return np.arange(len(labels), dtype=np.int32)


@settings(max_examples=60)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=20), st.integers(2, 6), st.integers(1, 12), st.integers(0, 2**32)
)
def test_groups_are_full_and_stay_together(counts, group, shards, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    order, starts = _grouped(labels, rows_of(labels), group, seed)
    assert np.array_equal(np.sort(order), np.arange(len(labels)))
    groups = np.split(labels[order], starts[1:])
    assert all(len(set(one.tolist())) == 1 for one in groups)
    for label, count in enumerate(counts):
        sizes = [len(one) for one in groups if one[0] == label]
        assert len(sizes) == max(count // group, 1)
        assert count < group or (min(sizes) >= group and max(sizes) < 2 * group)
        assert max(sizes) - min(sizes) <= 1
    parts = grouped_shards(labels, rows_of(labels), group=group, shards=shards, seed=seed)
    assert np.array_equal(np.concatenate(parts), order)
    assert set(np.cumsum([len(part) for part in parts[:-1]]).tolist()) <= set(starts.tolist())
    largest = max(map(len, groups))
    assert all(0 < len(part) < len(labels) / shards + largest for part in parts)
    assert len(parts) <= shards


def test_an_identity_is_cut_at_random():
    """Neighbours by name, often of one photograph or video, are no group of their own."""
    order, starts = _grouped(np.zeros(400, int), rows_of(range(400)), 4, 0)
    groups = np.split(order, starts[1:])
    assert len(groups) == 100
    assert np.mean([np.ptp(one) for one in groups]) > 150  # 3 for neighbours


def table_of(keys):
    return Rows(keys=pa.array(keys), reader=ListedImages(None), parts={}, problems={}, duplicate_of=str)


@pytest.mark.parametrize("group", [6, 10**9, 2**31, 10**20])
def test_a_group_may_be_larger_than_any_identity(group):
    labels = np.repeat(np.arange(3), 5)
    whole, _ = _grouped(labels, rows_of(labels), 5, 0)
    parts = grouped_shards(labels, rows_of(labels), group=group, shards=1, seed=0)
    assert np.array_equal(np.concatenate(parts), whole)
    assert grouped_shards(labels, rows_of([]), group=group, shards=1, seed=0)[0].size == 0


def test_only_some_rows_are_spread():
    labels, rows = np.array([1, 0, 1, -1, 0, 1]), np.array([0, 1, 2, 4], np.int32)
    (part,) = grouped_shards(labels, rows, group=2, shards=1, seed=0)
    assert sorted(part.tolist()) == rows.tolist()
    assert sorted(labels[part[:2]].tolist() + labels[part[2:]].tolist()) == [0, 0, 1, 1]
    assert len(set(labels[part[:2]].tolist())) == 1


def test_plans_are_frozen():
    """A change here changes the bytes of every set, and interrupted builds could not resume."""
    table = table_of([f"n{row % 6}/{row}" for row in range(12)])
    assert [rows.tolist() for rows in make_plan(table, images_per_shard=4).shards] == FROZEN_SPREAD
    assert [rows.tolist() for rows in make_plan(table, images_per_shard=4, group=2).shards] == FROZEN_GROUPS


def test_rejected_rows_are_in_the_shards_too():
    keys = [f"n{row % 3}/{row}" for row in range(9)] + ["odd", "odder"]
    plan = make_plan(table_of(keys), images_per_shard=1, group=3)
    assert [len(rows) for rows in plan.shards] == [4, 4, 3]  # three groups fill three shards, not nine
    assert sorted(np.concatenate(plan.shards).tolist()) == list(range(11))
    assert make_plan(table_of(["odd"]), group=4).shards[0].tolist() == [0]


@pytest.fixture
def grouped(vggface2, tmp_path):
    """The options of a build of 45 images in groups of 2 or 3, and its files."""
    build(build_options(vggface2, tmp_path / "whole", group=2))
    return build_options(vggface2, tmp_path / "out", group=2), contents(tmp_path / "whole")


def test_a_shard_has_its_groups_one_after_another(grouped, tmp_path):
    index = ShardIndex(tmp_path / "whole")
    assert index.manifest.shards == 4
    runs = 0
    for shard in range(4):
        rows = pq.read_table(tmp_path / "whole" / f"shard-{shard:06d}.parquet").to_pylist()
        labels = np.array([row["label"] for row in sorted(rows, key=lambda row: row["offset"])])
        lengths = np.diff(np.flatnonzero(np.diff(labels, prepend=-1, append=-1)))
        assert set(lengths.tolist()) <= {2, 3, 4, 5}  # two groups of an identity may be neighbours
        runs += len(lengths)
    assert 15 <= runs <= 18  # nine identities with a group of 2 and one of 3
    assert list(verify(tmp_path / "whole", full=True)) == []


def test_parts_and_a_resumed_build_give_the_same_bytes(grouped):
    options, whole = grouped
    for number in (2, 1):
        build_part(options, Part(number, 2))
    assert contents(options.out) == whole
    (options.out / "manifest.json").unlink()
    (options.out / "shard-000002.done.json").unlink()
    build(options)
    assert contents(options.out) == whole


def test_a_set_in_a_store_has_the_same_bytes(object_store, grouped, vggface2, tmp_path):
    _, whole = grouped
    build(build_options(vggface2, tmp_path / "staging", store=Store("s3://faces/sets/one"), group=2))
    assert object_store.content("sets/one") == whole


def test_an_image_that_comes_back_joins_its_group(grouped, vggface2):
    options, whole = grouped
    path = image(vggface2, "n000003/0002_01")
    data = path.read_bytes()
    path.unlink()
    assert build(options).statuses["missing-file"] == 1
    path.write_bytes(data)
    build(build_options(vggface2, options.out, group=2, retry_failed=True))
    assert contents(options.out) == whole


def test_groups_are_part_of_the_fingerprint_only_if_there_are_some(grouped, vggface2, tmp_path):
    options, _ = grouped
    build(build_options(vggface2, options.out))
    assert "--group" not in json.loads((options.out / "plan.json").read_text())["parts"]
    with pytest.raises(ShardError, match="contains a build with different --group; choose another --out"):
        build(options)
    with pytest.raises(ShardError, match="contains a build with different --group; choose another --out"):
        build(build_options(vggface2, tmp_path / "whole", group=3))


def test_a_group_of_one_is_refused(vggface2, tmp_path, run):
    with pytest.raises(ShardError, match="group is 1, expected at least 2"):
        build_options(vggface2, tmp_path / "out", group=1)
    process = run("build-shards", "--root", vggface2, "--group", "1")
    assert process.returncode == 2
    assert "1 is not in the range x>=2" in process.stderr
