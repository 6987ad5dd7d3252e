"""Heads over two and three processes equal those of a single process."""

from __future__ import annotations

import pytest
import torch
from torch import distributed

from model.heads import HEADS, build_head
from model.heads import rows as heads_rows
from model.options import OptionError
from model.sharding import gather_rows
from tests.model.heads.sharded_ranks import (
    CASES,
    CENTERS,
    CLASSES,
    FEATURES,
    LOADED,
    STEPS,
    center,
    crowded,
    learn,
    run,
)

TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-6}


@pytest.fixture(scope="module")
def alone():
    return {case: learn(*case) for case in CASES}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory, alone):
    """Results of the ranks, by their number."""
    pair, world = run(tmp_path_factory.mktemp("ranks"), {case: alone[case]["state"] for case in LOADED})
    return {2: pair, 3: world}


def assert_near(ours, theirs, dtype):
    """Within the tolerance, relative to the largest value of the tensor."""
    assert ours.dtype == theirs.dtype == dtype
    torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE[dtype] * max(1.0, float(theirs.abs().max())))


def assert_same_run(ranks, key, case, whole):
    dtype, gradients = case[2], [name for name in ("weight", "bias") if name in whole["steps"][0]]
    assert sum(rank[key][case]["classes_here"] for rank in ranks) == CLASSES
    assert len(whole["steps"]) == STEPS
    for number, step in enumerate(whole["steps"]):
        shards = [rank[key][case]["steps"][number] for rank in ranks]
        for shard in shards:
            assert_near(shard["losses"], step["losses"], dtype)
            assert_near(shard["features"], step["features"], dtype)
            assert torch.equal(shard["losses"], shards[0]["losses"])
            assert torch.equal(shard["features"], shards[0]["features"])
        for name in gradients:
            assert_near(torch.cat([shard[name] for shard in shards]), step[name], dtype)
    for rank in ranks:
        assert list(rank[key][case]["state"]) == list(whole["state"])
        for name, value in whole["state"].items():
            if value.is_floating_point():
                assert_near(rank[key][case]["state"][name], value, dtype)
            else:
                assert torch.equal(rank[key][case]["state"][name], value)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("world", [2, 3])
def test_losses_gradients_and_weights_equal_those_of_one_process(world, case, alone, ranks):
    assert_same_run(ranks[world], "heads", case, alone[case])


@pytest.mark.parametrize("case", LOADED, ids=str)
def test_a_state_loads_with_another_number_of_ranks(case, alone, ranks):
    assert_same_run(ranks[2], "loaded", case, learn(*case, state=alone[case]["state"]))
    saved = ranks[2][0]["heads"][case]["state"]
    assert_same_run(ranks[3], "loaded", case, learn(*case, state=saved))


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("world", [2, 3])
def test_a_rank_without_a_class_of_the_sample_takes_part(world, name, ranks):
    whole, parts = crowded(name), [rank["crowded"][name] for rank in ranks[world]]
    assert sum(part["columns"] for part in parts) == whole["columns"] == 2
    assert world < 3 or min(part["columns"] for part in parts) == 0
    for part in parts:
        assert_near(part["losses"], whole["losses"], torch.float64)
        assert_near(part["features"], whole["features"], torch.float64)


@pytest.mark.parametrize("text", CENTERS)
@pytest.mark.parametrize("world", [2, 3])
def test_center_loss_equals_that_of_one_process(world, text, ranks):
    whole = center(text)
    assert len(ranks[world]) == world
    for rank in ranks[world]:
        found = rank["center"][text]
        for ours, theirs in zip(found["steps"], whole["steps"], strict=True):
            assert_near(ours["losses"], theirs["losses"], torch.float64)
            assert_near(ours["features"], theirs["features"], torch.float64)
        assert_near(found["state"]["centers"], whole["state"]["centers"], torch.float64)


@pytest.mark.parametrize("world", [2, 3])
def test_the_generators_of_all_ranks_stay_equal(world, ranks):
    states = [rank["generator"] for rank in ranks[world]]
    assert len(states) == world
    assert all(torch.equal(state, states[0]) for state in states)


@pytest.fixture
def group(tmp_path):
    """A process group of one process."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield distributed.group.WORLD
    distributed.destroy_process_group()


def test_a_group_of_one_is_no_group(group):
    head = build_head("amsoftmax", features=4, classes=9, group=group)
    assert head.group is None


def test_rows_of_a_group_come_back_whole(group):
    block = torch.randn(5, 3)
    whole = gather_rows(block, 5, group)
    assert torch.equal(whole, block)
    assert whole.data_ptr() != block.data_ptr()


def test_fewer_classes_than_ranks_are_refused(group, monkeypatch):
    monkeypatch.setattr(distributed, "get_world_size", lambda group: 3)
    with pytest.raises(OptionError, match="head amsoftmax: 2 classes on 3 ranks, expected at least 3; add identities"):
        build_head("amsoftmax", features=4, classes=2, group=group)


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_blocks_of_rows_form_one_matrix_for_any_chunk_size(world, monkeypatch):
    torch.manual_seed(8)
    expected = torch.empty(CLASSES, FEATURES).uniform_(-1, 1)
    after = torch.get_rng_state()
    monkeypatch.setattr(heads_rows, "CHUNK_VALUES", 3 * FEATURES)
    blocks = []
    for rank in range(world):
        bounds = rank * CLASSES // world, (rank + 1) * CLASSES // world
        monkeypatch.setattr(heads_rows, "shard_bounds", lambda rows, group, bounds=bounds: bounds)
        torch.manual_seed(8)
        blocks.append(heads_rows.draw_rows(CLASSES, FEATURES, draw=lambda rows: rows.uniform_(-1, 1), group=None))
        assert torch.equal(torch.get_rng_state(), after)
    assert torch.equal(torch.cat(blocks), expected)
