"""The parts, the most important first; each runs in a separate process.

python -m tools.gpu.parts NAME SETTINGS
"""

from __future__ import annotations

import dataclasses
import json
import pkgutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools.gpu.report import Report

if TYPE_CHECKING:
    from benchmarks.speed.faces import Setup
    from shards.index import ShardIndex

SHARDS = "gpu/shards"  # below the scratch folder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """A part of the check.

    Attributes:
        run: the function, ``module:name``; it takes a ``Work``.
        seconds: it is ended after these, start included. About three times what an H100 should take; what an option of
            the check lets it train for comes on top.
        gpu: it is left out on a CPU.
    """

    run: str
    seconds: int
    gpu: bool = False


# The first two are what the others need; then comes what must be right, then how fast it is.
PARTS = {
    "machine": Part(run="tools.gpu.machine:machine", seconds=90),
    "data": Part(run="tools.gpu.machine:data", seconds=90),
    "decode": Part(run="tools.gpu.pixels:decode", seconds=60, gpu=True),
    "batch": Part(run="tools.gpu.pixels:batch", seconds=60),
    "degrade": Part(run="tools.gpu.pixels:degrade_all", seconds=60),
    "recipes": Part(run="tools.gpu.training:recipes", seconds=120),
    "resume": Part(run="tools.gpu.training:resume", seconds=60),
    "precision": Part(run="tools.gpu.training:precisions", seconds=60),
    "nccl": Part(run="tools.gpu.training:nccl", seconds=60),
    "evaluation": Part(run="tools.gpu.scoring:evaluation", seconds=60),
    "step": Part(run="tools.gpu.speed:step", seconds=90),
    "loader": Part(run="tools.gpu.speed:loader", seconds=120),
    "train": Part(run="tools.gpu.training:train_on", seconds=60),
    "ir50": Part(run="tools.gpu.speed:ir50", seconds=90),
    "onnx": Part(run="tools.gpu.scoring:onnx", seconds=60),
    "tests": Part(run="tools.gpu.machine:marked_tests", seconds=90, gpu=True),
    "compile": Part(run="tools.gpu.speed:compiled", seconds=120),
    "networks": Part(run="tools.gpu.scoring:networks", seconds=400),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What every part is told.

    Attributes:
        root: folder of data sets; empty for generated faces.
        train_s: seconds of the training that is extrapolated.
        networks_s: seconds of each of the two trainings that are compared; 0: none.
        deadline: of the whole check, seconds since the epoch.
    """

    device: str
    quick: bool
    root: str
    scratch: str
    results: str
    train_s: float
    networks_s: float
    deadline: float


class Work:
    """A running part: its settings, its report, and the data that all parts share."""

    def __init__(self, name: str, settings: Settings) -> None:
        full = settings.device == "cuda" and not settings.quick
        self.report = Report(Path(settings.results), name, judged=full)
        self.settings, self.device, self.quick = settings, settings.device, settings.quick
        self.scratch = Path(settings.scratch)

    @property
    def setup(self) -> Setup:
        """The settings of the benchmarks of speed."""
        from benchmarks.speed.faces import Setup

        root = Path(self.settings.root) if self.settings.root else None
        return Setup(root=root, scratch=self.scratch, rounds=1 if self.quick else 3, quick=self.quick)

    @property
    def index(self) -> ShardIndex:
        """The shard set that the part ``data`` has built."""
        from shards.index import ShardIndex

        return ShardIndex(self.scratch / SHARDS)


def main(name: str, settings: str) -> None:
    """Runs a part."""
    run: Any = pkgutil.resolve_name(PARTS[name].run)
    run(Work(name, Settings(**json.loads(settings))))


if __name__ == "__main__":
    main(*sys.argv[1:])
