"""``cli.py`` that records the rows of its batches, and waits at one; started by torchrun.

Environment: ``RECORDS``, a folder; ``HOLD``, ``EPOCH,STEP`` of the loader after the batch at which this process waits
until its ``torchrun`` is gone.
"""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

import cli
from pipeline.load.loader import Loader

FOLDER, PARENT, PROCESS = Path(os.environ["RECORDS"]), os.getppid(), time.monotonic_ns()
draw = Loader.__next__


def recorded(loader):
    batch = draw(loader)
    position = [batch.state.epoch, batch.state.step]
    record = {
        "process": PROCESS,
        "rank": int(os.environ.get("RANK", 0)),
        "size": int(os.environ.get("WORLD_SIZE", 1)),
        "position": position,
        "rows": batch.rows.tolist(),
        "labels": batch.labels.tolist(),
    }
    with open(FOLDER / f"{socket.gethostname()}-{PROCESS}.jsonl", "a") as stream:
        stream.write(json.dumps(record) + "\n")
    if os.environ.get("HOLD") == ",".join(map(str, position)):
        (FOLDER / "held").touch()
        while os.getppid() == PARENT:
            time.sleep(0.05)
    return batch


if __name__ == "__main__":
    Loader.__next__ = recorded
    cli.main()
