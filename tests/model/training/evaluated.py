"""Evaluations of small runs, and what they wrote."""

from __future__ import annotations

import json

import torch

from model.formats.checkpoint import checkpoints, read_checkpoint
from tests.model.training.runs import losses, run_training

FACES = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)


def spread(backbone):
    """A figure that depends only on the weights."""
    return {"spread": backbone(FACES).std().item()}


def step_of(run):
    """The last step of a run."""
    return max(losses(run), default=0)


def table(run, **figures):
    """An evaluation with given figures by step, ``table(run, a={3: 0.5})``; those of step 0 are the best."""
    return lambda backbone: {name: {0: 9.0, **values}[step_of(run)] for name, values in figures.items()}


def evaluations(run):
    return [json.loads(line) for line in (run / "eval.jsonl").read_text().splitlines()]


def best(run):
    """The run's best.json; asserts that best.pt is the checkpoint of that step."""
    facts = json.loads((run / "best.json").read_text())
    assert read_checkpoint(run / "best.pt")["step"] == facts["step"]
    return facts


def resume(run, settings, **options):
    return run_training(run, settings, resume=checkpoints(run)[-1], **options)
