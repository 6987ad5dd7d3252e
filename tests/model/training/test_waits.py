"""What a step waits for on a GPU: nothing, but for the losses and heads that say so. Tried without a GPU, on the meta device.

A tensor there has no values. What reads one, or copies it from or to the host as a GPU would wait for, is noted.
"""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from model.heads import HEADS
from model.training.config import TrainConfig
from model.training.state import new_run
from model.training.update import Updater
from pipeline.spec import Preprocessing

READS = ("_local_scalar_dense", "nonzero", "_unique2", "masked_select")
SPEC = Preprocessing(size=32, mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.3))  # one number for each channel


class Waits(TorchDispatchMode):
    """Notes the operators that would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def updated(self, **settings) -> list[str]:
        """Makes two updates of a run with these settings; returns what they wait for."""
        config = TrainConfig(**{"backbone": "spherenet4", "batch_size": 2, "steps": 9, "views": "32,8", **settings})
        state = new_run(config, classes=9, preprocessing=SPEC, device="meta")
        state.optimizer.step = lambda: None  # has no kernels for the meta device
        state.learner.train()
        update, images = Updater(state), torch.empty(2, 2, 32, 32, 3, dtype=torch.uint8, device="meta")
        labels = torch.zeros(2, dtype=torch.int64, device="meta")
        self.found.clear()
        with self:
            for step in range(2):
                update(images, labels, step, check=False)
        return self.found

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().removeprefix("aten::").partition(".")[0]
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        if name in READS and any(one.is_meta for one in given):
            self.found.append(name)
        result = func(*args, **(kwargs or {}))
        places = {one.device for one in [*given, *tree_leaves(result)] if isinstance(one, torch.Tensor)}
        if name in ("_to_copy", "copy_") and len(places) > 1:
            self.found.append(name)
        return result


@pytest.fixture
def waits(monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # the meta device has none
    watch, made = Waits(), torch.tensor

    def tensor(*args, device=None, **options):  # its copy from the host passes every mode
        watch.found += [] if device is None else ["tensor"]
        return made(*args, device=device, **options)

    monkeypatch.setattr(torch, "tensor", tensor)
    return watch


@pytest.mark.parametrize("head", list(HEADS))
def test_no_head_waits(waits, head):
    assert waits.updated(head=head) == []


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
def test_no_setting_waits(waits, settings):
    assert waits.updated(**settings) == []


@pytest.mark.parametrize(
    ("settings", "read"),
    [({"losses": "cross-entropy+center"}, "nonzero"), ({"head": "arcface:sample=0.5"}, "_local_scalar_dense")],
)
def test_what_waits_is_noted(waits, settings, read):
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):  # what is read has no value
        waits.updated(**settings)
    assert waits.found == [read]
