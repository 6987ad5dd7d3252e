"""ShardPrefetch: the tars of a set in a store arrive in the order in which the loader needs them."""

from __future__ import annotations

import re

import numpy as np
import pytest

import pipeline.load.prefetch
from pipeline.load.loader import Loader
from pipeline.load.prefetch import ShardPrefetch
from pipeline.load.sampler import Draw, IdentitySampler, LoaderState
from shards.cache import CachedSet
from shards.index import ShardIndex
from tests.pipeline.load.batches import BATCH, STEPS, assert_same, batches_of
from tests.processes import wait_until

URL, SHARDS = "s3://faces/sets/small", 12


@pytest.fixture
def local(stored_shards):
    return ShardIndex(stored_shards)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def start_of(index):
    return LoaderState(seed=1, global_batch=BATCH, views=4, index_digest=index.manifest.index_digest)


def pairs(batches):
    return [(batch.images, batch.labels) for batch in batches]


def requested(object_store):
    """The numbers of the tars, in the order of the requests."""
    found = (re.search(r"shard-(\d+)\.tar", path) for _, path, _ in object_store.requests)
    return [int(match[1]) for match in found if match]


class InOrder(IdentitySampler):
    """Every batch is one image of the next shard."""

    def draw(self, epoch, step):
        row = np.flatnonzero(self.index.shard == step % SHARDS)[:1]
        return Draw(classes=row, rows=row[None], flips=row[None] > 0, size_draws=row[None])


def in_order(index):
    start = LoaderState(seed=1, global_batch=1, views=1, index_digest=index.manifest.index_digest)
    sampler = InOrder(index.first, index.count, start)
    sampler.index, sampler.steps_per_epoch = index, SHARDS
    return sampler, start


@pytest.mark.parametrize("tars", [None, 5])
def test_batches_are_those_of_a_folder(local, object_store, cache, tars):
    """With room for all tars, and for a few of them."""
    small = sum((local.root / name).stat().st_size for name in ("manifest.json", "index.parquet"))
    size = tars and small + tars * max(path.stat().st_size for path in local.root.glob("*.tar"))
    with CachedSet(URL, folder=cache, size=size) as index:
        cached = batches_of(index, STEPS)
        assert index.cache.holds_all == (tars is None)
        after = batches_of(index, 1, resume=cached[1].state.to_dict())
    assert_same(pairs(cached), pairs(batches_of(local, STEPS)))
    assert_same(pairs(after), pairs(cached[2:3]))
    if tars is None:
        assert sorted(requested(object_store)) == list(range(SHARDS))
    else:
        assert len(requested(object_store)) > SHARDS


def test_tars_are_fetched_in_the_order_in_which_they_are_needed(local, object_store, cache, monkeypatch):
    monkeypatch.setattr("shards.fetch_queue.FETCHES", 1)
    start = start_of(local)
    sampler = IdentitySampler(local.first, local.count, start)
    expected, state = [], start
    while len(expected) < SHARDS:
        shards = np.unique(local.shard[sampler.draw(state.epoch, state.step).rows])
        expected += [shard for shard in shards.tolist() if shard not in expected]
        state = sampler.after(state)
    with CachedSet(URL, folder=cache) as index, ShardPrefetch(index, sampler, start, report=False):
        wait_until(lambda: not index.cache.missing().any())
    assert requested(object_store) == expected


def test_a_small_cache_gets_no_more_ahead_than_it_holds(local, object_store, cache):
    sampler, start = in_order(local)
    with CachedSet(URL, folder=cache) as index:
        index.cache.folder.size = index.cache.other_bytes + 1 + int(index.cache.tar_bytes[:3].sum() / 0.9)
        with ShardPrefetch(index, sampler, start, report=False) as prefetch:
            wait_until(lambda: not index.cache.missing()[:3].any())
            assert set(requested(object_store)) == {0, 1, 2}
            for _ in range(3):
                prefetch.advance()
            wait_until(lambda: 4 in requested(object_store))
        assert set(requested(object_store)) <= {0, 1, 2, 3, 4, 5, 6}


def test_processes_of_a_machine_share_the_room(local, cache, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    sampler, start = in_order(local)
    with CachedSet(URL, folder=cache) as index:
        assert ShardPrefetch(index, sampler, start, report=False).budget is None
        index.cache.folder.size = index.cache.other_bytes + 80_000
        assert ShardPrefetch(index, sampler, start, report=False).budget == 18_000


def test_a_cold_start_and_a_cache_that_is_too_small_are_reported(local, cache, capsys, monkeypatch):
    monkeypatch.setattr(pipeline.load.prefetch, "LOOK_S", 0.01)
    sampler, start = in_order(local)
    with CachedSet(URL, folder=cache) as index:
        total = index.cache.tar_bytes.sum()
        with ShardPrefetch(index, sampler, start, report=True):
            wait_until(lambda: "<" in capsys.readouterr().err if index.cache.missing().sum() == 0 else False)
        with ShardPrefetch(index, sampler, start, report=True):  # nothing is missing
            pass
        assert capsys.readouterr().err == ""
        index.cache.folder.size = int(total // 2)
        with Loader(index, batch_size=BATCH) as loader:
            next(loader)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert re.fullmatch(
        rf"{URL}: \d+ KB, but its cache {cache} may hold \d+ KB: in random order every batch needs tars from everywhere,"
        r" which are fetched again and again. --cache-size 1M would hold all; or read in order, with --order sequential",
        told[0],
    )


def test_tars_that_arrive_before_the_first_batch_of_a_small_cache_are_reported(local, cache, capsys, monkeypatch):
    monkeypatch.setattr(pipeline.load.prefetch, "LOOK_S", 0.01)
    with CachedSet(URL, folder=cache) as index:
        sampler, start = in_order(index)
        missing = index.cache.missing()
        prefetch = ShardPrefetch(index, sampler, start, report=True)
        prefetch.budget, prefetch._read = 1, 1  # the batch has been read before the first look
        index.cache.want(prefetch._shards_of(start))
        wait_until(lambda: index.cache.missing().sum() == SHARDS - 1)
        prefetch._report_arrivals(prefetch._sizes.copy(), missing)
    assert re.search(r": ([1-9][\d.]*kB)/\1 ", capsys.readouterr().err)


def test_what_ends_the_wait_for_a_tar_is_raised_by_the_loader(local, object_store, cache, monkeypatch):
    monkeypatch.setattr("shards.attempts.TRIES", 1)
    for shard in range(SHARDS):
        object_store.delete(f"sets/small/shard-{shard:06d}.tar")
    with (
        CachedSet(URL, folder=cache) as index,
        pytest.raises(Exception, match=r"shard-.*\.tar: not found; check the URL"),
    ):
        batches_of(index, 1)
