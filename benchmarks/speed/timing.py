"""Times things against each other: interleaved rounds, medians, ratios with their spread."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from benchmarks.report.document import Grid
from pipeline.progress import Progress

Role = Literal["baseline", "ours", "floor"]
_RATIOS: dict[Role, str] = {"baseline": "x baseline", "floor": "of the floor"}

_LIBRARIES = ("numpy", "pillow", "simplejpeg", "nvidia-dali-cuda120", "torch")  # OpenCV's has several names


def _nothing() -> None:
    pass


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contender:
    """One way to do a stage's work.

    Attributes:
        role: ``baseline``: as an ordinary user writes it; ``floor``: the bare library calls without which it cannot be
            done; ``ours``.
        run: what is timed; it has finished when it returns.
        amount: units of work in one call.
        prepare: called before each call, not timed.
        gives: what comes of it, where contenders differ in that; only those that give the same are compared.
    """

    name: str
    role: Role
    run: Callable[[], object]
    amount: int
    prepare: Callable[[], object] = _nothing
    gives: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing:
    """What was timed, in one run.

    Attributes:
        stage: ``build``.  title: of table and chart.  unit: what is counted, ``images``.
        roles, gives, amounts: contender -> its role, what comes of it, and units in one call.
        seconds: contender -> (rounds,) seconds of a call.
        facts: about what was timed.
    """

    stage: str
    title: str
    unit: str
    roles: dict[str, Role]
    gives: dict[str, str]
    amounts: dict[str, int]
    seconds: dict[str, np.ndarray]
    facts: dict[str, str]

    def rate(self, name: str) -> np.ndarray:
        """(rounds,) units per second."""
        return self.amounts[name] / self.seconds[name]

    def reference(self, name: str, role: Role) -> str | None:
        """The contender of ``role`` that gives what ``name`` gives; of several the one with the highest rate."""
        others = [other for other, its in self.roles.items() if its == role and self.gives[other] == self.gives[name]]
        return max(others, key=lambda other: float(np.median(self.rate(other))), default=None)

    def ratios(self, name: str, role: Role) -> np.ndarray | None:
        """(rounds,) its rate over that of its reference of ``role``, round by round; None if there is none."""
        reference = self.reference(name, role)
        return None if reference is None else self.rate(name) / self.rate(reference)

    def grid(self) -> Grid:
        """Medians, and ratios with the least and greatest round."""
        columns = {role: title for role, title in _RATIOS.items() if role in self.roles.values()}
        rows = []
        for name in self.seconds:
            rate = float(np.median(self.rate(name)))
            ratios = [_spread(self.ratios(name, role)) for role in columns]
            rows.append([name, f"{1e6 / rate:,.1f}", rounded(rate), *ratios])
        header = ["", "us each", f"{self.unit}/s", *columns.values()]
        return Grid(caption=self.title, header=header, rows=rows)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, with the times of every round."""
        return {
            "stage": self.stage,
            "title": self.title,
            "unit": self.unit,
            "facts": self.facts,
            "contenders": {
                name: {
                    "role": self.roles[name],
                    "gives": self.gives[name],
                    "amount": self.amounts[name],
                    "seconds": seconds.tolist(),
                    "rate": float(np.median(self.rate(name))),
                    "times_baseline": _median(self.ratios(name, "baseline")),
                    "of_floor": _median(self.ratios(name, "floor")),
                }
                for name, seconds in self.seconds.items()
            },
        }


def rounded(rate: float) -> str:
    """Whole units per second; of few, three digits."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def _median(ratios: np.ndarray | None) -> float | None:
    return None if ratios is None else float(np.median(ratios))


def _spread(ratios: np.ndarray | None) -> str:
    return "" if ratios is None else f"{np.median(ratios):.2f} [{ratios.min():.2f}, {ratios.max():.2f}]"


def compare_times(
    stage: str,
    title: str,
    contenders: Sequence[Contender],
    *,
    unit: str,
    rounds: int,
    facts: Mapping[str, str],
    warm_up: int = 1,
) -> Timing:
    """Calls each contender once a round, in turn, so that a machine that slows down slows all of them.

    Args:
        warm_up: rounds before, which do not count.  facts: about what was timed.
    """
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    assert len(seconds) == len(contenders), "two contenders of one name"
    with Progress(f"bench speed {stage}", (rounds + warm_up) * len(contenders), "calls") as progress:
        for number in range(rounds + warm_up):
            for contender in contenders:
                contender.prepare()
                began = time.perf_counter()
                contender.run()
                taken = time.perf_counter() - began
                if number >= warm_up:
                    seconds[contender.name].append(taken)
                progress.update()
    return Timing(
        stage=stage,
        title=title,
        unit=unit,
        roles={contender.name: contender.role for contender in contenders},
        gives={contender.name: contender.gives for contender in contenders},
        amounts={contender.name: contender.amount for contender in contenders},
        seconds={name: np.array(values) for name, values in seconds.items()},
        facts=dict(facts),
    )


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keeps what is said on stderr within, by worker processes too, out of the timing's own progress."""
    sys.stderr.flush()
    saved, quiet = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(quiet, 2)
        yield
    finally:
        try:
            sys.stderr.flush()  # what an error within leaves half said belongs within, too
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(quiet)


def machine() -> dict[str, str]:
    """Processor, cores, system, where files are written, and the versions of the libraries that do the work."""
    versions = {}
    for library in _LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "system": platform.platform(),
        "files in": tempfile.gettempdir(),
        "python": platform.python_version(),
        "opencv": cv2.__version__,
        **versions,
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
