"""The index in memory: the columns of its file, images of an identity side by side."""

from __future__ import annotations

import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.speed.fresh import in_fresh_process, peak_mb
from benchmarks.speed.made import make_set
from shards import index as index_module
from shards.index import ShardIndex
from shards.schema import INDEX


@pytest.fixture(params=["one part", "several"])
def opened(request, shard_set, monkeypatch):
    if request.param == "several":
        monkeypatch.setattr(index_module, "_AT_ONCE", 7)
    return ShardIndex(shard_set)


def test_columns_are_those_of_the_file(opened):
    table = pq.read_table(opened.root / INDEX)
    assert len(opened) == table.num_rows == 45
    for name in ("label", "shard", "offset", "size", "xxh3"):
        column, expected = getattr(opened, name), table[name].to_numpy()
        assert column.dtype == expected.dtype
        assert np.array_equal(column, expected)


def test_images_of_an_identity_lie_side_by_side(opened):
    labels, first, count = np.unique(opened.label, return_index=True, return_counts=True)
    for found, expected in ((opened.labels, labels), (opened.first, first), (opened.count, count)):
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)


def test_keys_are_found_in_any_row_group(shard_set, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.speed.made._AT_ONCE", 20)
    make_set(shard_set, tmp_path / "made", 50)
    index = ShardIndex(tmp_path / "made")
    keys = pq.read_table(tmp_path / "made" / INDEX)["key"].to_pylist()
    assert [index.key(row) for row in range(50)] == keys
    with pytest.raises(IndexError):
        index.key(50)


def opening_adds(root):
    before = peak_mb()
    index = ShardIndex(root)
    return len(index), peak_mb() - before, "pandas" in sys.modules


def test_opening_holds_little_more_than_the_columns(shard_set, tmp_path):
    make_set(shard_set, tmp_path / "made", 200_000)
    rows, added, pandas = in_fresh_process(opening_adds, tmp_path / "made")
    assert rows == 200_000
    assert added < 60  # MB; the columns are 6
    assert not pandas
