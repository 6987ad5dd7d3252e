"""Sampling: distinct identities, one pass per epoch, independent of the number of ranks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.load.sampler import IdentitySampler, LoaderState, SamplerError
from pipeline.philox import draws, permutation

FROZEN_PERMUTATION = [1, 7, 6, 5, 0, 4, 3, 9, 8, 2]
FROZEN_PICKS = [[2798137294, 2114800800, 1835329201, 3095620055], [1066080330, 1228215794, 3066638912, 2025159420]]
FROZEN_FLIPS = [[False, True, True, False], [False, True, True, True]]


def state(**changes):
    return LoaderState(**{"seed": 3, "global_batch": 8, "views": 4, "index_digest": "d", **changes})


def sampler(identities=21, rank=0, world_size=1, **changes):
    count = np.random.default_rng(0).integers(1, 9, identities)
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    return IdentitySampler(first, count, state(**changes), rank=rank, world_size=world_size), first, count


def test_an_epoch_is_one_pass_without_the_last_partial_batch():
    drawing, _, _ = sampler()
    assert drawing.steps_per_epoch == 2
    seen = np.concatenate([drawing.draw(5, step).classes for step in range(2)])
    assert len(seen) == len(set(seen.tolist())) == 16
    other = np.concatenate([drawing.draw(6, step).classes for step in range(2)])
    assert set(other.tolist()) != set(seen.tolist())


def test_rows_belong_to_their_identity():
    drawing, first, count = sampler()
    draw = drawing.draw(0, 1)
    assert draw.rows.shape == draw.flips.shape == (4, 8)
    assert (draw.rows >= first[draw.classes]).all()
    assert (draw.rows < (first + count)[draw.classes]).all()


@settings(max_examples=30)
@given(
    st.integers(0, 2**32 - 1), st.integers(0, 1000), st.integers(0, 1), st.sampled_from([1, 2, 4, 8]), st.integers(1, 9)
)
def test_ranks_share_the_global_batch(seed, epoch, step, world_size, views):
    whole = sampler(seed=seed, views=views)[0].draw(epoch, step)
    parts = [
        sampler(seed=seed, views=views, rank=rank, world_size=world_size)[0].draw(epoch, step)
        for rank in range(world_size)
    ]
    assert np.array_equal(np.concatenate([part.classes for part in parts]), whole.classes)
    assert np.array_equal(np.concatenate([part.rows for part in parts], axis=1), whole.rows)
    assert np.array_equal(np.concatenate([part.flips for part in parts], axis=1), whole.flips)


def test_the_stream_is_frozen():
    """A change here changes the batches of every run and requires a new SAMPLER_VERSION."""
    assert permutation(7, 2, 10).tolist() == FROZEN_PERMUTATION
    picks, flips, _ = draws(7, 2, slice(3, 5), 4)
    assert picks.tolist() == FROZEN_PICKS
    assert flips.tolist() == FROZEN_FLIPS


def test_draws_are_uniform_and_independent_of_the_slice():
    picks, flips, _ = draws(0, 0, slice(0, 20_000), 4)
    assert np.array_equal(picks[700:900], draws(0, 0, slice(700, 900), 4)[0])
    bins = np.bincount((picks.ravel() * np.uint64(10) >> np.uint64(32)).astype(int), minlength=10)
    assert np.abs(bins / 8000 - 1).max() < 0.05
    assert abs(flips.mean() - 0.5) < 0.01
    assert np.abs(np.corrcoef(np.column_stack([picks.astype(float), flips]).T) - np.eye(8)).max() < 0.03


def test_permutations_differ_by_seed_and_epoch():
    order = permutation(1, 0, 1000)
    assert sorted(order.tolist()) == list(range(1000))
    assert not np.array_equal(order, permutation(1, 1, 1000))
    assert not np.array_equal(order, permutation(2, 0, 1000))


def test_impossible_batches_are_rejected():
    with pytest.raises(
        SamplerError, match="batch size 30 is larger than the number of identities, 21; lower --batch-size"
    ):
        sampler(global_batch=30)
    with pytest.raises(
        SamplerError, match="batch size 8 is not divisible by the number of processes, 3; change --batch-size"
    ):
        sampler(world_size=3)
    with pytest.raises(SamplerError, match="seed -1 is out of range"):
        state(seed=-1)
    with pytest.raises(SamplerError, match="at least one identity"):
        state(global_batch=0)


@pytest.mark.parametrize("name", ["seed", "global_batch", "views", "sampler_version"])
def test_a_state_of_another_stream_is_rejected_and_the_field_named(name):
    saved = {**state(epoch=2, step=1).to_dict(), name: 99}
    with pytest.raises(SamplerError, match=f"loader state: {name} was 99, is now"):
        state().resumed(saved)


def test_a_state_advances_over_epochs():
    position = state()
    steps = [(position := position.next(2)) for _ in range(5)]
    assert [(at.epoch, at.step) for at in steps] == [(0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    assert state().resumed(steps[3].to_dict()) == steps[3]
