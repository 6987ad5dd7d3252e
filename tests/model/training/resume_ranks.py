"""One rank of the runs in ``test_ranks`` whose ranks see different disks; started by torchrun.

The argument is a folder with a folder for each scenario, and in it one for each rank, from which the rank starts
``run``. Writes the step that the rank starts from, or its error, to ``result.json`` there.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from model.training.config import TrainConfig
from model.training.ranks import Ranks, open_ranks
from model.training.start import start_run
from pipeline.spec import Preprocessing
from shards.errors import LrfrError
from tests.model.training.train_ranks import CLASSES, SPEC


def result(resume: str, ranks: Ranks) -> int | str:
    config = TrainConfig(backbone="spherenet4", views="32,8", batch_size=4)
    try:
        start = start_run(
            config,
            run=Path("run"),
            resume=resume,
            classes=CLASSES,
            shards_spec=Preprocessing(**SPEC),
            device="cpu",
            ranks=ranks,
        )
    except LrfrError as error:
        return f"{type(error).__name__}: {error}"
    return start.step


if __name__ == "__main__":
    torch.set_num_threads(1)
    with open_ranks("cpu") as everyone:
        for scenario in sorted(Path(sys.argv[1]).iterdir()):
            os.chdir(scenario / str(everyone.rank))
            resume = "never" if scenario.name == "never" else "auto"
            Path("result.json").write_text(json.dumps(result(resume, everyone)))
