"""One rank of the runs that ``test_ranks`` compares with a single process; started by torchrun.

Each argument is a folder with ``settings.json``: the configuration, and ``stop_at``, ``kill_at`` or ``hang_at``, the batch
at which the last rank gets a signal; or ``evaluate_s``, the seconds of the first evaluation. ``STEP_S`` in the environment
is the time limit of a step.
"""

from __future__ import annotations

import datetime
import functools
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from model.formats.checkpoint import checkpoints, read_checkpoint
from model.training import ranks
from model.training.config import TrainConfig
from model.training.loop import train
from model.training.ranks import Ranks, open_ranks
from model.training.state import new_run
from tests.model.training.runs import lent, teach

CLASSES, BATCH, SIZE = 7, 4, 32
SPEC = {"template": "seed", "size": SIZE, "mean": 0.5, "std": 0.5}


class Share:
    """A rank's part of batches that depend only on their number."""

    def __init__(self, ranks: Ranks, views: int, start: int, at: dict[int, object]) -> None:
        self.ranks, self.views, self.number, self.at = ranks, views, start, at

    def __iter__(self):
        return self

    def __next__(self):
        generator = torch.Generator().manual_seed(self.number)
        images = torch.randint(0, 256, (self.views, BATCH, SIZE, SIZE, 3), dtype=torch.uint8, generator=generator)
        originals = images.roll(1, 3)
        labels = torch.randperm(CLASSES, generator=generator)[:BATCH]
        self.at.get(self.number, lambda: None)()
        rows = np.arange(self.views * BATCH).reshape(self.views, BATCH) + self.views * BATCH * self.number
        self.number += 1
        share = BATCH // self.ranks.size
        mine = slice(self.ranks.rank * share, (self.ranks.rank + 1) * share)
        state = SimpleNamespace(to_dict=lambda at=self.number: {"step": at})
        return SimpleNamespace(
            images=images[:, mine],
            labels=labels[mine],
            rows=rows[:, mine],
            originals=originals[:, mine],
            state=state,
        )


def run(folder: Path, team: Ranks) -> int:
    settings = json.loads((folder / "settings.json").read_text())
    at = {}
    for name, number in (("stop_at", signal.SIGTERM), ("kill_at", signal.SIGKILL), ("hang_at", signal.SIGSTOP)):
        if team.rank == team.size - 1 and name in settings:
            at[settings[name]] = functools.partial(os.kill, os.getpid(), number)
    config = TrainConfig(**settings["config"])
    torch.use_deterministic_algorithms(True)
    teacher = lent(config.backbone.name) if config.losses.distill else None
    state = new_run(config, classes=CLASSES, preprocessing=SPEC, ranks=team, teacher=teacher)
    held = checkpoints(folder / "run")
    start = state.restore(read_checkpoint(held[-1]), held[-1]) if held else 0
    stream = Share(team, len(config.all_views), start, at)
    targets = teach if config.losses.embedding_terms else None
    seconds = [settings["evaluate_s"]] if "evaluate_s" in settings else []

    def evaluate(backbone):
        time.sleep(seconds.pop() if seconds else 0)
        return {"lfw/accuracy": 0.5}

    slow = evaluate if seconds else None
    return train(stream, state, folder / "run", start=start, targets=targets, evaluate=slow)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if "STEP_S" in os.environ:
        ranks.STEP_TIMEOUT = datetime.timedelta(seconds=int(os.environ["STEP_S"]))
    with open_ranks("cpu") as everyone:
        for argument in sys.argv[1:]:
            run(Path(argument), everyone)
