"""Times alternatives against each other: interleaved rounds, median rates, ratios round by round."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from pipeline.progress import Progress

Facts = dict[str, str]
Role = Literal["baseline", "ours", "floor"]  # as an ordinary user writes it; ours; only the library calls that it needs
Run = Callable[[], object]


@dataclasses.dataclass(frozen=True)
class Contender:
    """One way to do the work of a stage."""

    name: str
    role: Role
    run: Run  # the timed function; all work is done when it returns
    amount: int  # units of work in one call
    gives: str = ""  # kind of result; only contenders with the same kind are compared
    prepare: Run = lambda: None  # called before each call, outside the timing


@dataclasses.dataclass(frozen=True)
class Row:
    """A timed contender."""

    role: Role
    gives: str
    amount: int
    seconds: np.ndarray  # (rounds,) of its calls

    @property
    def rates(self) -> np.ndarray:
        """(rounds,) units per second."""
        return self.amount / self.seconds

    @property
    def rate(self) -> float:
        """Median units per second."""
        return float(np.median(self.rates))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing:
    """Contenders that were timed in the same run."""

    stage: str
    title: str
    unit: str  # unit of the amounts, such as images
    facts: Facts  # about what was timed
    rows: dict[str, Row]  # by contender

    def ratios(self, name: str, role: Role) -> np.ndarray | None:
        """(rounds,) rates relative to the fastest contender of ``role`` with the same result; None without one."""
        row = self.rows[name]
        others = [other for other in self.rows.values() if (other.role, other.gives) == (role, row.gives)]
        return row.rates / max(others, key=lambda other: other.rate).rates if others else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable, with the times of every round."""
        content = dataclasses.asdict(self)
        content["contenders"] = content.pop("rows")
        for name, contender in content["contenders"].items():
            baseline, floor = self.ratios(name, "baseline"), self.ratios(name, "floor")
            contender["seconds"] = contender["seconds"].tolist()
            contender["rate"] = self.rows[name].rate
            contender["times_baseline"] = None if baseline is None else float(np.median(baseline))
            contender["of_floor"] = None if floor is None else float(np.median(floor))
        return content


def against_first(runs: dict[str, Run], amount: int) -> list[Contender]:
    """Contenders; the first is the baseline of the others."""
    first = next(iter(runs))
    return [Contender(name, "baseline" if name == first else "ours", run, amount) for name, run in runs.items()]


def compare_times(
    stage: str, title: str, timed: list[Contender], *, rounds: int, facts: Facts, unit: str = "images", warmup: int = 1
) -> Timing:
    """Calls each contender once per round, in turn, so that a slow phase of the machine affects all of them."""
    rows = {each.name: Row(each.role, each.gives, each.amount, np.zeros(rounds)) for each in timed}
    assert len(rows) == len(timed), "two contenders share a name"
    hidden = contextlib.redirect_stderr(io.StringIO())  # the progress of what is timed
    with Progress(f"bench speed {stage}", (warmup + rounds) * len(timed), "calls") as progress, hidden:
        for number in range(-warmup, rounds):
            for contender in timed:
                contender.prepare()
                start = time.perf_counter()
                contender.run()
                elapsed = time.perf_counter() - start
                if number >= 0:
                    rows[contender.name].seconds[number] = elapsed
                progress.update()
    return Timing(stage=stage, title=title, unit=unit, facts=facts, rows=rows)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))
