"""Small training runs for tests."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from model.backbones import build_backbone
from model.formats.checkpoint import read_checkpoint
from model.formats.network import LoadedNetwork
from model.training.config import TrainConfig
from model.training.loop import train
from model.training.state import new_run
from model.training.teacher import Teacher
from pipeline.spec import Preprocessing

CLASSES = 6
SPEC = {"template": "seed", "size": 32, "mean": 0.5, "std": 0.5}


class Stream:
    """Batches that depend only on their number, like the loader's."""

    def __init__(self, start=0, poison=None, at_batch=None):
        self.number, self.poison, self.at_batch = start, poison, at_batch or {}

    def __iter__(self):
        return self

    def __next__(self):
        self.at_batch.get(self.number, lambda: None)()
        generator = torch.Generator().manual_seed(self.number)
        images = torch.randint(0, 256, (4, 3, 32, 32, 3), dtype=torch.uint8, generator=generator)
        labels = torch.randperm(CLASSES, generator=generator)[:3]
        if self.number == self.poison:
            images = images.float() * float("nan")
        originals = torch.randint(0, 256, images.shape, dtype=torch.uint8, generator=generator)
        rows = np.arange(12).reshape(4, 3) + 12 * self.number
        self.number += 1
        position = SimpleNamespace(to_dict=lambda at=self.number: {"step": at})
        return SimpleNamespace(images=images, labels=labels, rows=rows, originals=originals, state=position)


def lent(backbone="spherenet4", **changes):
    """A teacher whose layers are known."""
    with torch.random.fork_rng():
        torch.manual_seed(11)
        network = build_backbone(backbone, image_size=changes.get("size", 32)).eval()
    spec = Preprocessing(**{**SPEC, **changes})
    return Teacher.of(LoadedNetwork(network, spec, backbone, Path("a.pt"), None, "0" * 32, {}, spec_stated=True))


def teach(rows):
    """Targets that depend only on the rows, as a teacher's do."""
    vectors = [torch.randn(512, generator=torch.Generator().manual_seed(row)) for row in rows.ravel().tolist()]
    return torch.nn.functional.normalize(torch.stack(vectors)).reshape(*rows.shape, 512)


def config(**changes):
    return TrainConfig(
        **{"backbone": "spherenet4", "batch_size": 3, "steps": 8, "lr": 0.05, "save_every": 3, **changes}
    )


def run_training(run, settings, *, resume=None, evaluate=None, **stream):
    distills = settings.losses.distill
    teacher = lent() if distills else None
    state = new_run(settings, classes=CLASSES, preprocessing=SPEC, teacher=teacher)
    start = state.restore(read_checkpoint(resume), resume) if resume else 0
    targets = teach if settings.losses.embedding_terms else None
    done = train(Stream(start, **stream), state, run, start=start, evaluate=evaluate, targets=targets)
    return done, state.learner


def losses(run):
    return {row["step"]: row["loss"] for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())}
