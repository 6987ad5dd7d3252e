"""Sequential order: distinct identities, all images of a few shards, the same batches on any number of ranks."""

from __future__ import annotations

import dataclasses
import re
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.build import build
from pipeline.build.groups import grouped_shards
from pipeline.load.loader import Loader
from pipeline.load.sampler import LoaderState, SamplerError
from pipeline.load.sequential import SequentialSampler
from shards.cache import CachedSet
from shards.index import ShardIndex
from tests.pipeline.load.batches import BATCH, assert_same, batches_of, global_batches
from tests.shard_sets import build_options

FROZEN = [[7, 1, 6, 2], [[14, 3, 13, 5], [15, 2, 12, 4]]]


def made_index(counts, *, group, shards, seed=0):
    """What a sampler sees of an index: identities with so many images each, in groups or (0) one by one."""
    label = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    if group:
        parts = grouped_shards(label, np.arange(len(label), dtype=np.int32), group=group, shards=shards, seed=seed)
    else:
        parts = np.array_split(np.random.default_rng(seed).permutation(len(label)), shards)
    shard = np.empty(len(label), np.int32)
    for number, part in enumerate(parts):
        shard[part] = number
    manifest = types.SimpleNamespace(shards=len(parts))
    labels = np.arange(len(counts), dtype=np.int32)
    return types.SimpleNamespace(label=label, labels=labels, count=np.array(counts), shard=shard, manifest=manifest)


def state(**changes):
    return LoaderState(**{"seed": 3, "global_batch": 8, "views": 4, "index_digest": "d", "window": 4, **changes})


def sampler(index, rank=0, world_size=1, **changes):
    return SequentialSampler(index, state(**changes), rank=rank, world_size=world_size)


def epoch_of(drawing, epoch=0):
    return [drawing.draw(epoch, step) for step in range(drawing.steps(epoch, beyond=10**9))]


@pytest.fixture(scope="module")
def index():
    """3,000 images of 60 identities in 20 shards."""
    return made_index(np.random.default_rng(0).integers(20, 81, 60), group=4, shards=20)


def test_identities_of_a_batch_are_distinct_and_rows_are_theirs(index):
    drawn = epoch_of(sampler(index))
    assert len(drawn) > 80
    for draw in drawn:
        assert len(set(draw.classes.tolist())) == 8
        assert (index.label[draw.rows] == draw.classes).all()
        assert draw.rows.shape == draw.flips.shape == draw.size_draws.shape == (4, 8)


@pytest.mark.parametrize("views", [1, 2, 3, 4, 7])
def test_an_epoch_uses_nearly_every_image_and_none_twice_before_its_group(index, views):
    drawn = epoch_of(sampler(index, views=views))
    used = np.bincount(np.concatenate([draw.rows.ravel() for draw in drawn]), minlength=len(index.label))
    assert np.mean(used > 0) > 0.94
    assert used.max() <= -(-views // 4) * 2  # groups of 4 to 7, or two of them in one shard
    if views == 1:
        assert used.max() == 1
    other = epoch_of(sampler(index, views=views), epoch=1)
    reused = np.bincount(np.concatenate([draw.rows.ravel() for draw in other]), minlength=len(index.label))
    assert ((used > 0) | (reused > 0)).mean() > 0.995  # others are left out


@settings(max_examples=40)
@given(
    st.lists(st.integers(1, 30), min_size=8, max_size=60),
    st.integers(1, 8),
    st.integers(1, 9),
    st.integers(0, 2**32 - 1),
)
def test_a_window_makes_as_many_batches_as_distinct_identities_allow(counts, batch, views, seed):
    """Against the plain greedy rule: always take the identities with the most slots left."""
    index = made_index(counts, group=3, shards=1, seed=seed)
    drawing = sampler(index, global_batch=batch, views=views, seed=seed, window=1)
    left, batches = -(-np.array(counts) // views), 0
    while np.count_nonzero(left) >= batch:
        left[np.argsort(-left, kind="stable")[:batch]] -= 1
        batches += 1
    drawn = epoch_of(drawing)
    assert len(drawn) == batches > 0
    assert all(len(set(draw.classes.tolist())) == batch for draw in drawn)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(0, 1000), st.integers(0, 40), st.sampled_from([1, 2, 4, 8]))
def test_ranks_share_the_global_batch(index, seed, epoch, step, world_size):
    whole = sampler(index, seed=seed).draw(epoch, step)
    parts = [sampler(index, rank, world_size, seed=seed).draw(epoch, step) for rank in range(world_size)]
    for name in ("classes", "rows", "flips", "size_draws"):
        joined = np.concatenate([getattr(part, name) for part in parts], axis=-1)
        assert np.array_equal(joined, getattr(whole, name))


def test_a_rank_touches_few_shards_of_a_window():
    index = made_index(np.full(2000, 16), group=4, shards=32)
    settled = {"global_batch": 256, "window": 16}
    whole = sampler(index, **settled)
    first_window = range(whole._ends(0, 0)[0])
    assert len(first_window) > 10
    for rank in range(4):
        drawing = sampler(index, rank, 4, **settled)
        touched = [np.unique(index.shard[drawing.draw(0, step).rows]) for step in first_window]
        assert max(map(len, touched)) <= 6  # of a batch; 4 at least
        assert len(np.unique(np.concatenate(touched))) <= 7  # of 16
    assert len({len(np.unique(index.shard[whole.draw(0, step).rows])) for step in first_window}) == 1  # mixed: all 16


def test_an_epoch_goes_from_window_to_window(index):
    drawing = sampler(index)
    ends = drawing._ends(0, 10**9)
    windows = drawing._opened(0)[0]
    assert [len(window) for window in windows] == [4] * 5
    seen = [np.unique(index.shard[draw.rows]) for draw in epoch_of(drawing)]
    for start, end, window in zip([0, *ends[:-1]], ends, windows, strict=True):
        assert set(np.concatenate(seen[start:end]).tolist()) == set(window.tolist())
    assert [window.tolist() for window in drawing._opened(1)[0]] != [window.tolist() for window in windows]


def test_slots_are_mixed(index):
    """Identities meet at random: as often as in random order, within the noise of counting."""
    drawn = epoch_of(sampler(index, window=20, views=1))
    met = np.zeros((60, 60))
    for draw in drawn:
        met[np.ix_(draw.classes, draw.classes)] += 1
    share = np.bincount(np.concatenate([draw.classes for draw in drawn])) / len(drawn)
    expected = np.outer(share, share)
    apart = ~np.eye(60, dtype=bool)
    deviation = (met[apart] / len(drawn) - expected[apart]) / np.sqrt(expected[apart] / len(drawn))
    assert abs(deviation.mean()) < 0.5
    assert deviation.std() < 1.2


def test_the_position_after_a_batch_crosses_windows_and_epochs(index):
    drawing, at = sampler(index), state()
    steps = drawing.steps(0, beyond=10**9)
    positions = [at := drawing.after(at) for _ in range(steps + 1)]
    assert [(one.epoch, one.step) for one in positions[-2:]] == [(1, 0), (1, 1)]
    assert [one.step for one in positions[:-2]] == list(range(1, steps))
    drawing.check(positions[-3])
    with pytest.raises(SamplerError, match=f"step {steps} of an epoch of {steps}; resume from another checkpoint"):
        sampler(index).check(state(step=steps))
    with pytest.raises(SamplerError, match=f"step {1 << 60} of an epoch of {steps}"):
        sampler(index).check(state(step=1 << 60))


def test_any_step_can_be_drawn_by_any_thread(index):
    """What fetches shards ahead draws other steps than the loader does, at the same time."""
    drawn, drawing = epoch_of(sampler(index)), sampler(index)
    steps = np.random.default_rng(0).permutation(np.arange(len(drawn)).repeat(3)).tolist()
    with ThreadPoolExecutor(8) as threads:
        for step, draw in zip(steps, threads.map(lambda step: drawing.draw(0, step), steps), strict=True):
            assert np.array_equal(draw.rows, drawn[step].rows)


def test_the_stream_is_frozen():
    """A change here changes the batches of every sequential run and requires a new SAMPLER_VERSION."""
    drawn = sampler(made_index([2] * 8, group=2, shards=2), global_batch=4, views=2, window=1).draw(5, 1)
    assert [drawn.classes.tolist(), drawn.rows.tolist()] == FROZEN


def test_shards_without_an_image_are_windows_without_a_batch():
    index = made_index([4] * 10, group=4, shards=2)
    index.shard *= 2
    index.manifest.shards = 5
    assert len(epoch_of(sampler(index, global_batch=2, window=5))) == 5
    for epoch in range(4):
        drawn = epoch_of(sampler(index, global_batch=1, window=1), epoch)
        assert len({int(draw.classes[0]) for draw in drawn}) == len(drawn) == 10


def test_scattered_identities_are_refused_unless_there_is_one_view():
    index = made_index([20] * 60, group=0, shards=30)
    with pytest.raises(SamplerError) as error:
        sampler(index)
    assert str(error.value).endswith(
        "% of the images are the only one of their identity in their shard, so that all views would be of one photograph;"
        " build the shards with --group 4, or leave out --order sequential"
    )
    assert len(epoch_of(sampler(index, views=1))) > 100
    singles = made_index([1] * 600, group=4, shards=30)  # nothing that groups could mend
    assert len(epoch_of(sampler(singles))) > 50
    large = made_index([400] * 30, group=0, shards=8)  # they lie together as it happens
    assert len(epoch_of(sampler(large))) > 100


def test_a_window_that_is_too_small_is_refused(index):
    message = (
        r"a window of 1 shard has \d+ identities, fewer than the batch size 56; raise --window, or lower --batch-size"
    )
    with pytest.raises(SamplerError, match=message):
        sampler(index, global_batch=56, window=1)
    with pytest.raises(SamplerError, match="batch size 64 is larger than the number of identities, 60"):
        sampler(index, global_batch=64)


def test_states_of_the_two_orders_do_not_mix():
    random = dataclasses.replace(state(), window=0)
    assert "window" not in random.to_dict()
    assert state().resumed(state(epoch=2, step=3).to_dict()).step == 3
    for ours, saved, change in (
        (state(), random, "order was random, is now sequential with window 4"),
        (random, state(), "order was sequential with window 4, is now random"),
        (state(), state(window=8), "order was sequential with window 8, is now sequential with window 4"),
    ):
        with pytest.raises(SamplerError, match=f"loader state: {change}; resume with the settings of the original run"):
            ours.resumed(saved.to_dict())


@pytest.fixture(scope="module")
def grouped(_vggface2, tmp_path_factory):
    out = tmp_path_factory.mktemp("grouped") / "set"
    build(build_options(_vggface2, out, group=2, images_per_shard=8))
    return ShardIndex(out)


def test_ranks_and_resumed_loaders_give_the_same_batches(grouped):
    whole = global_batches([batches_of(grouped, 6, window=3)])
    ranks = [batches_of(grouped, 6, window=3, rank=rank, world_size=2) for rank in range(2)]
    assert_same(global_batches(ranks), whole)
    saved = ranks[0][0].state.to_dict()
    assert (saved["step"], saved["window"]) == (1, 3)  # within the first window
    assert_same(global_batches([batches_of(grouped, 5, window=3, resume=saved)]), whole[1:])
    assert [batch.state.epoch for batch in ranks[0]][-1] >= 1
    assert not torch.equal(whole[0][1], global_batches([batches_of(grouped, 1)])[0][1])


def test_a_cache_of_two_windows_fetches_each_tar_once_in_an_epoch(grouped, object_store, tmp_path, monkeypatch):
    """The set is larger than the cache: random order would fetch the same tars again and again."""
    monkeypatch.setattr("shards.fetch_queue.FETCHES", 1)
    object_store.copy("sets/grouped", grouped.root)
    with CachedSet("s3://faces/sets/grouped", folder=tmp_path / "cache") as index:
        index.cache.folder.size = index.cache.other_bytes + int(0.85 * index.cache.tar_bytes.sum())  # of six tars
        cached = batches_of(index, 5, window=2)
        assert not index.cache.holds_all
    assert_same(global_batches([cached]), global_batches([batches_of(grouped, 5, window=2)]))
    found = (re.search(r"shard-(\d+)\.tar", path) for _, path, _ in object_store.requests)
    requested = [int(match[1]) for match in found if match]
    windows = sampler(grouped, seed=0, global_batch=BATCH, window=2)._opened(0)[0]
    assert len(windows) == 3
    assert [set(requested[:2]), set(requested[2:4]), set(requested[4:6])] == [set(pair.tolist()) for pair in windows]


@pytest.mark.parametrize(("window", "error"), [(0, ValueError), ("4", TypeError), (True, TypeError)])
def test_a_window_is_a_number_of_shards(grouped, window, error):
    with pytest.raises(error, match="window is "):
        Loader(grouped, batch_size=BATCH, window=window)
