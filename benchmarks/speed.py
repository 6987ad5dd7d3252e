"""Times things against each other: interleaved rounds, medians, ratios with their spread."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.document import Grid
from pipeline.progress import Progress
from shards.files import write_bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing:
    """What was timed, in one run.

    Attributes:
        title: of the table.  unit: what is counted, ``images``.  amount: of units in one call.
        seconds: contender -> (rounds,) seconds of a call; the first is what the others are compared with.
        machine: facts about it and the versions.
    """

    title: str
    unit: str
    amount: int
    seconds: dict[str, np.ndarray]
    machine: dict[str, str]

    def ratios(self, name: str) -> np.ndarray:
        """(rounds,) how many times faster than the first contender, round by round."""
        first = next(iter(self.seconds.values()))
        return first / self.seconds[name]

    def grid(self) -> Grid:
        """Medians, and ratios with the least and greatest round."""
        rows = []
        for name, seconds in self.seconds.items():
            median, ratios = float(np.median(seconds)), self.ratios(name)
            spread = f"{np.median(ratios):.2f} [{ratios.min():.2f}, {ratios.max():.2f}]"
            rows.append([name, f"{1000 * median:,.1f}", f"{self.amount / median:,.0f}", spread])
        first = next(iter(self.seconds))
        return Grid(caption=self.title, header=["", "ms", f"{self.unit}/s", f"times {first}"], rows=rows)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, with the times of every round."""
        return {
            "title": self.title,
            "unit": self.unit,
            "amount": self.amount,
            "seconds": {name: seconds.tolist() for name, seconds in self.seconds.items()},
            "ratios": {name: float(np.median(self.ratios(name))) for name in self.seconds},
            "machine": self.machine,
        }


def compare_times(
    title: str,
    contenders: Mapping[str, Callable[[], None]],
    *,
    unit: str,
    amount: int,
    rounds: int,
    facts: Mapping[str, str],
    warm_up: int = 1,
) -> Timing:
    """Calls each contender once a round, in turn, so that a machine that slows down slows all of them.

    Args:
        contenders: name -> what is timed; it must have finished when it returns.  amount: units in a call.
        warm_up: rounds before, which do not count.  facts: about what was timed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    with Progress(title, rounds + warm_up, "rounds") as progress:
        for number in range(rounds + warm_up):
            for name, call in contenders.items():
                began = time.perf_counter()
                call()
                if number >= warm_up:
                    seconds[name].append(time.perf_counter() - began)
            progress.update()
    taken = {name: np.array(values) for name, values in seconds.items()}
    return Timing(title=title, unit=unit, amount=amount, seconds=taken, machine={**machine(), **facts})


def machine() -> dict[str, str]:
    """Processor, cores and system."""
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def write_timing(timing: Timing, path: Path) -> None:
    """Writes ``timing`` as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, (json.dumps(timing.to_dict(), indent=1) + "\n").encode())
