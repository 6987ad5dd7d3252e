"""Times alternatives against each other: interleaved rounds, median rates, ratios round by round."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np

from pipeline.progress import Progress

Facts = dict[str, str]
Role = Literal["baseline", "ours", "floor"]


@dataclasses.dataclass(frozen=True)
class Contender:
    """One way to do the work of a stage.

    Attributes:
        role: ``baseline``: as an ordinary user writes it; ``floor``: only the library calls that the work needs; ``ours``.
        run: the timed function; all work is done when it returns.
        amount: units of work in one call.
        gives: what the work results in; only contenders with the same result are compared.
        prepare: called before each call, outside the timing.
    """

    name: str
    role: Role
    run: Callable[[], object]
    amount: int
    gives: str = ""
    prepare: Callable[[], object] = lambda: None


@dataclasses.dataclass(frozen=True)
class Row:
    """A timed contender: (rounds,) seconds of its calls, and the attributes of ``Contender``."""

    role: Role
    gives: str
    amount: int
    seconds: np.ndarray

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
    """Contenders that were timed in the same run.

    Attributes:
        stage: ``build``.  title: of table and chart.  unit: what ``amount`` counts, such as ``images``.
        rows: by contender name.  facts: about what was timed.
    """

    stage: str
    title: str
    unit: str
    facts: Facts
    rows: dict[str, Row]

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


def compare_times(
    stage: str, title: str, contenders: Sequence[Contender], *, unit: str, rounds: int, facts: Facts, warm_up: int = 1
) -> Timing:
    """Calls each contender once per round, in turn, so that a slow phase of the machine affects all of them.

    Args:
        warm_up: untimed rounds before the others.
    """
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    assert len(seconds) == len(contenders), "two contenders share a name"
    with Progress(f"bench speed {stage}", (rounds + warm_up) * len(contenders), "calls") as progress:
        for number in range(rounds + warm_up):
            for contender in contenders:
                contender.prepare()
                with silenced():
                    start = time.perf_counter()
                    contender.run()
                    elapsed = time.perf_counter() - start
                if number >= warm_up:
                    seconds[contender.name].append(elapsed)
                progress.update()
    rows = {each.name: Row(each.role, each.gives, each.amount, np.array(seconds[each.name])) for each in contenders}
    return Timing(stage=stage, title=title, unit=unit, facts=facts, rows=rows)


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Hides the progress of what is timed."""
    with open(os.devnull, "w") as null, contextlib.redirect_stderr(null):
        yield


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))
