"""Losses on generated faces: equal to those of a plain loop and to the recorded ones."""

from __future__ import annotations

import contextlib
import itertools
import json

import pytest
import torch
from torch.nn import functional

from model.backbones import build_backbone
from model.training.config import TrainConfig, TrainingError
from model.training.loop import train
from model.training.state import new_run
from pipeline.load.loader import Loader
from pipeline.spec import spec_of
from shards.index import ShardIndex
from tests.processes import REPOSITORY

GOLDEN = REPOSITORY / "tests" / "golden" / "curve.json"
STEPS, FIRST_STEPS, BATCH, LR = 20, 5, 4, 0.002


@pytest.fixture(autouse=True, scope="module")
def _narrow():
    """The recorded losses are those of the whole network."""


@pytest.fixture(scope="module")
def index(_shard_set):
    return ShardIndex(_shard_set)


def plain_loop(index):
    """The method as an ordinary PyTorch user would write it: one forward pass per view, losses from their formulas."""
    torch.manual_seed(0)
    backbone = build_backbone("spherenet4")
    weight = torch.nn.Parameter(torch.empty(index.manifest.identities, 512).uniform_(-1, 1))
    optimizer = torch.optim.SGD([*backbone.parameters(), weight], lr=LR, momentum=0.9, weight_decay=5e-4)
    curve = []
    with Loader(index, batch_size=BATCH, mode="exact") as batches:
        for step in range(STEPS):
            batch = next(batches)
            for group in optimizer.param_groups:
                group["lr"] = LR * 0.1 ** sum(step >= milestone for milestone in (8, 12, 16))
            views = [backbone((view.permute(0, 3, 1, 2) / 255 - 0.5) / 0.5) for view in batch.images]
            margin = 0.35 * functional.one_hot(batch.labels, len(weight))
            losses = [
                functional.cross_entropy(
                    30 * (functional.normalize(view) @ functional.normalize(weight).T - margin), batch.labels
                )
                for view in views
            ]
            rows, labels = functional.normalize(torch.cat(views)), batch.labels.repeat(len(views))
            distances, same = 1 - rows @ rows.T, labels[:, None] == labels
            apart = [
                1 + distances[i][same[i] & (torch.arange(len(labels)) != i)].max() - distances[i][~same[i]].min()
                for i in range(len(labels))
            ]
            loss = torch.stack(losses).mean() + torch.stack(apart).clamp_min(0).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            curve.append(loss.item())
    return curve


@pytest.fixture
def losses(index, tmp_path):
    """``losses(steps)``: of the first steps of a run of twenty."""

    def learn(steps):
        config = TrainConfig(backbone="spherenet4", batch_size=BATCH, steps=STEPS, lr=LR)
        state = new_run(config, classes=index.manifest.identities, preprocessing=spec_of(index.manifest))
        with Loader(index, batch_size=BATCH, mode="exact") as batches:
            ends = pytest.raises(TrainingError, match="batches ended") if steps < STEPS else contextlib.nullcontext()
            with ends:
                train(itertools.islice(batches, steps), state, tmp_path)
        return [json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]

    return learn


@pytest.mark.heavy
def test_losses_equal_those_of_a_plain_loop(index, losses):
    assert losses(STEPS) == pytest.approx(plain_loop(index), rel=1e-4)


@pytest.mark.parametrize("steps", [FIRST_STEPS, pytest.param(STEPS, marks=pytest.mark.heavy)])
def test_losses_equal_the_recorded_ones(losses, steps):
    assert losses(steps) == pytest.approx(json.loads(GOLDEN.read_text())["loss"][:steps], rel=2e-3)
