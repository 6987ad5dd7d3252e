"""What a step makes the host wait for on a GPU: nothing, but for the losses and heads that say so. Tried on ``meta``."""

from __future__ import annotations

import contextlib

import pytest
import torch

from model.heads import HEADS
from model.training.config import TrainConfig
from model.training.learner import StepInputs
from model.training.state import new_run
from model.training.update import Updater
from pipeline.spec import Preprocessing
from tests.transfers import transfers

SPEC = Preprocessing(size=32, mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.3))  # one number for each channel


@pytest.fixture(autouse=True)
def without_autocast(monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # the meta device has none


def waits(**settings) -> list[str]:
    """What two updates of a run with these settings copy between host and device; reading a value fails."""
    config = TrainConfig(**{"backbone": "spherenet4", "batch_size": 2, "steps": 9, "views": "32,8", **settings})
    state = new_run(config, classes=9, preprocessing=SPEC, device="meta")
    state.optimizer.step = lambda: None  # has no kernels for the meta device
    state.learner.train()
    images = torch.empty(2, 2, 32, 32, 3, dtype=torch.uint8, device="meta")
    inputs = StepInputs(images, torch.zeros(2, dtype=torch.int64, device="meta"))
    update = Updater(state)
    with transfers() as found:
        for step in range(2):
            update(inputs, step, lr=0.1, check=False)
    return found


@pytest.mark.parametrize("head", list(HEADS))
def test_no_head_waits(head):
    assert waits(head=head) == []


@pytest.mark.parametrize(
    "settings",
    [
        {"ema": 0.9},
        {"clip_norm": 1.0, "optimizer": "adamw"},
        {"accumulate": 2, "backbone": "spherenet4:dropout=0.5"},
        {"activation_checkpointing": True},
        {"losses": "focal+octuplet:metric=euclidean"},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_no_setting_waits(settings):
    assert waits(**settings) == []


@pytest.mark.parametrize(
    ("settings", "read"),
    [({"losses": "cross-entropy+center"}, "nonzero"), ({"head": "arcface:sample=0.5"}, "item")],
)
def test_what_says_that_it_waits(settings, read):
    with pytest.raises((NotImplementedError, RuntimeError), match=rf"{read}\(\)"):  # has no values to read
        waits(**settings)
