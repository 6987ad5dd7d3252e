"""LFW at five resolutions: the baseline and the engine compute the same; the excerpt resembles its list."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from benchmarks.datasets.lfw import read_lfw
from benchmarks.engine.runner import Engine, run
from benchmarks.errors import ProtocolError
from benchmarks.speed import baselines
from benchmarks.speed.baselines import score_pairs, worker_count
from benchmarks.speed.eval import FIVE, FIVE_SETTINGS, choose_pairs, select, time_eval
from benchmarks.speed.faces import Setup
from model.backbones import build_backbone
from model.embedder import Embedder
from model.training.init import initialise_from_data


@pytest.fixture
def whole(demo):
    return read_lfw(demo("LFW"))


@pytest.fixture
def network(narrow):
    """Its embeddings of faces differ, unlike those of PyTorch's initial weights."""
    torch.manual_seed(0)
    network = build_backbone("spherenet4")
    initialise_from_data(network, torch.nn.Linear(512, 4), torch.randn(8, 3, 128, 128))
    return network.eval()


def excerpt(whole, each):
    return select(whole, choose_pairs(whole, each), list(whole.members))


def hr_to_lr(protocol):
    return select(protocol, list(range(len(protocol.genuine))), FIVE_SETTINGS)


def image_pairs(protocol):
    return [(protocol.requests[first], protocol.requests[second]) for first, second in protocol.members["{}@128"]]


def score(protocol, network):
    return run(protocol, Engine(embed=Embedder(network)), checkpoint={}, intervals=False)


def test_pair_by_pair_and_the_engine_find_the_same(whole, network):
    timed = excerpt(whole, 4)
    plain, accuracies = score_pairs(network, timed, FIVE)
    twice, _ = score_pairs(network, timed, FIVE, both=True)
    five, everything = score(hr_to_lr(timed), network), score(timed, network)
    assert plain.shape == (5, 16)
    np.testing.assert_allclose(twice, plain, atol=1e-5)
    assert set(five.settings) == set(FIVE_SETTINGS)
    assert len(everything.settings) == 9
    for size, scores, accuracy in zip(FIVE, plain, accuracies, strict=True):
        assert scores.std() > 0.01
        for result in (five, everything):
            np.testing.assert_allclose(result.settings[f"{{}}@{size}"].scores, scores, atol=1e-4)
            assert result.metrics[f"accuracy@{size}"] == pytest.approx(accuracy)
    assert not np.allclose(plain[FIVE.index(8)], plain[FIVE.index(128)], atol=1e-2)


def test_there_are_no_more_workers_than_batches(monkeypatch):
    monkeypatch.setattr(baselines, "cores", lambda: 16)
    assert [worker_count(items) for items in (1, 33, 160, 30_000)] == [1, 2, 5, 16]


@pytest.mark.parametrize(("both", "passes_per_pair"), [(False, 2), (True, 4)])
def test_the_baseline_embeds_per_pair_and_the_engine_per_image(whole, network, both, passes_per_pair):
    timed = excerpt(whole, 2)
    passes = []
    hook = network.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))
    score_pairs(network, timed, FIVE, both=both)
    hook.remove()
    assert sum(passes) == passes_per_pair * len(FIVE) * len(timed.genuine)
    distinct = {request.path for pair in image_pairs(timed) for request in pair}
    second = {second.path for _, second in image_pairs(timed)}
    assert score(hr_to_lr(timed), network).counts["embedded"] == len(distinct) + 4 * len(second)
    assert score(timed, network).counts["embedded"] == len(timed.requests)


def test_an_excerpt_repeats_images_as_often_as_its_list(whole):
    found = excerpt(whole, 3)
    assert found.folds.tolist() == [0] * 6 + [1] * 6
    assert found.genuine.tolist() == ([True] * 3 + [False] * 3) * 2
    shares = [len(hr_to_lr(protocol).requests) / len(protocol.genuine) for protocol in (found, whole)]
    assert shares[0] == pytest.approx(shares[1], rel=0.1)
    kinds = dict(zip(map(paths, image_pairs(whole)), whole.genuine, strict=True))
    assert [kinds[paths(pair)] for pair in image_pairs(found)] == found.genuine.tolist()
    assert set(found.members) == set(whole.members)
    for setting in found.members:
        sizes = [
            {tuple(protocol.requests[row].down for row in pair) for pair in protocol.members[setting]}
            for protocol in (found, whole)
        ]
        assert len(sizes[0]) == 1
        assert sizes[0] == sizes[1]


def paths(pair):
    return tuple(request.path for request in pair)


def test_unusable_pairs_are_left_out_and_no_pair_is_an_error(whole):
    gone, damaged, unaligned = (image_pairs(whole)[row][0].path for row in range(3))
    gone.unlink()
    damaged.write_bytes(b"\xff\xd8")
    requests = [
        dataclasses.replace(request, points=None) if request.path == unaligned else request
        for request in whole.requests
    ]
    found = excerpt(dataclasses.replace(whole, requests=requests), 1000)
    assert len(found.genuine) > 4
    assert not {gone, damaged, unaligned} & {request.path for request in found.requests}
    for request in whole.requests:
        request.path.write_bytes(b"")
    message = "expected 2 pairs of each kind whose images can be read and have landmarks"
    with pytest.raises(ProtocolError, match=message):
        choose_pairs(whole, 3)


@pytest.mark.heavy
def test_a_quick_run_times_all_contenders(demo, tmp_path):
    (timing,) = time_eval(Setup(root=demo("LFW").parent, scratch=tmp_path, rounds=1, quick=True))
    assert {name: row.amount for name, row in timing.rows.items()} == {
        "pair by pair": 60,
        "pair by pair, four passes as the reference": 20,
        "fp32": 60,
        "fp32, LR to LR too": 108,
        "bf16": 60,
        "bf16, LR to LR too": 108,
    }
    assert timing.title == "LFW at 128, 8, 12, 16, 20 px, from files to accuracies"
    assert timing.facts["network"] == "spherenet4"
    assert timing.facts["timed"].startswith("12 pairs of ")
    assert "120 passes pair by pair" in timing.facts["timed"]
    assert timing.ratios("fp32, LR to LR too", "baseline") is None  # nine settings, not five
    assert timing.ratios("fp32", "baseline") is not None
