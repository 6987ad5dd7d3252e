"""LFW at five resolutions: the plain baseline, the engine and the command compute the same; the excerpt is like its list."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch

from benchmarks.datasets.lfw import read_lfw
from benchmarks.errors import ProtocolError
from benchmarks.speed.excerpt import hr_to_lr, image_pairs, write_excerpt
from benchmarks.speed.pair_by_pair import score_pairs, workers
from benchmarks.speed.scoring import FIVE, score_all, score_five, score_plainly
from model.backbones import build_backbone
from model.embedder import Embedder
from model.training.init import initialise_from_data


@pytest.fixture
def root(demo):
    return demo("LFW").parent


@pytest.fixture
def network():
    """Its embeddings of faces differ, unlike those of PyTorch's initial weights."""
    torch.manual_seed(0)
    network = build_backbone("spherenet4")
    initialise_from_data(network, torch.nn.Linear(512, 4), torch.randn(8, 3, 128, 128))
    return network.eval()


def test_pair_by_pair_and_the_engine_find_the_same(root, network, tmp_path):
    excerpt = write_excerpt(read_lfw(root / "LFW"), tmp_path / "excerpt", 4)
    plain, twice = score_plainly(excerpt, network), score_plainly(excerpt, network, both=True)
    five, everything = (score(excerpt, Embedder(network)) for score in (score_five, score_all))
    assert list(plain) == list(FIVE)
    assert set(five.settings) == {f"{{}}@{size}" for size in FIVE}
    assert len(everything.settings) == 9
    for size, its in plain.items():
        assert len(its.scores) == 16
        assert its.scores.std() > 0.01
        np.testing.assert_allclose(twice[size].scores, its.scores, atol=1e-5)
        for result in (five, everything):
            np.testing.assert_allclose(result.settings[f"{{}}@{size}"].scores, its.scores, atol=1e-4)
            assert result.metrics[f"accuracy@{size}"] == pytest.approx(its.accuracy)
    assert not np.allclose(plain[8].scores, plain[128].scores, atol=1e-2)


def test_each_core_prepares_pairs_if_there_are_batches_for_it(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(16))
    assert [workers(items) for items in (1, 33, 160, 30_000)] == [1, 2, 5, 16]


@pytest.mark.parametrize(("both", "each"), [(False, 2), (True, 4)])
def test_the_baseline_makes_passes_for_each_pair_and_the_engine_one_for_each_image(root, network, tmp_path, both, each):
    excerpt = write_excerpt(read_lfw(root / "LFW"), tmp_path / "excerpt", 2)
    protocol = read_lfw(excerpt / "LFW")
    passes = []
    hook = network.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))
    score_pairs(network, image_pairs(protocol), protocol.genuine, protocol.folds, FIVE, both=both)
    assert sum(passes) == each * len(FIVE) * len(protocol.genuine)
    hook.remove()
    distinct = {request.path for pair in image_pairs(protocol) for request in pair}
    second = {second.path for _, second in image_pairs(protocol)}
    assert score_five(excerpt, Embedder(network)).counts["embedded"] == len(distinct) + 4 * len(second)
    assert score_all(excerpt, Embedder(network)).counts["embedded"] == len(protocol.requests)


def test_an_excerpt_repeats_images_as_often_as_its_list(root, tmp_path):
    whole = read_lfw(root / "LFW")
    excerpt = read_lfw(write_excerpt(whole, tmp_path / "excerpt", 3) / "LFW")
    assert (len(excerpt.genuine), int(excerpt.genuine.sum())) == (12, 6)
    shares = [len(hr_to_lr(protocol).requests) / len(protocol.genuine) for protocol in (excerpt, whole)]
    assert shares[0] == pytest.approx(shares[1], rel=0.1)
    known = {request.path.name: request.points for request in whole.requests}
    assert all(known[request.path.name] == request.points for request in excerpt.requests)


def test_pairs_that_cannot_be_used_are_left_out_and_no_pair_is_an_error(root, tmp_path):
    whole = read_lfw(root / "LFW")
    gone, damaged = image_pairs(whole)[0][0].path, image_pairs(whole)[1][0].path
    gone.unlink()
    damaged.write_bytes(b"\xff\xd8")
    excerpt = read_lfw(write_excerpt(whole, tmp_path / "excerpt", 1000) / "LFW")
    assert not {gone.name, damaged.name} & {request.path.name for request in excerpt.requests}
    for request in whole.requests:
        request.path.write_bytes(b"")
    with pytest.raises(
        ProtocolError, match="2 pairs of each kind are needed whose images can be read and have landmarks"
    ):
        write_excerpt(whole, tmp_path / "none", 3)


@pytest.mark.heavy
def test_the_command_writes_table_json_and_chart(run, root, tmp_path):
    words = ["--quick", "--rounds", 1, "--root", root, "--json", tmp_path / "t.json", "--chart", tmp_path / "t.png"]
    process = run("bench", "speed", "eval", *words)
    assert process.returncode == 0, process.stderr
    (timing,) = json.loads((tmp_path / "t.json").read_text())
    amounts = {name: its["amount"] for name, its in timing["contenders"].items()}
    assert amounts == {
        "pair by pair": 60,
        "pair by pair, four passes as the reference": 20,
        "fp32": 60,
        "fp32, LR to LR too": 108,
        "bf16": 60,
        "bf16, LR to LR too": 108,
    }
    assert timing["facts"]["timed"].startswith("12 pairs of ")
    assert timing["facts"]["network"] == "spherenet4"
    assert "120 passes pair by pair" in timing["facts"]["timed"]
    assert timing["contenders"]["fp32, LR to LR too"]["times_baseline"] is None  # nine settings, not five
    assert "\nLFW at 128, 8, 12, 16, 20 px, from files to accuracies" in process.stdout
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
