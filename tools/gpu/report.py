"""Results as JSON lines, written one by one, and their table. Imports no library, because a broken one is a result."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model import errors

if TYPE_CHECKING:
    from benchmarks.speed.timing import Timing

OK, FAILED, REACHED, MISSED, LEFT_OUT = "ok", "FAILED", "reached", "NOT reached", "left out"
NO_GPU = "GPU that PyTorch can use"  # the row of a machine without one
VALUE_WIDTH = 78  # characters of a value in the table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table.

    Attributes:
        verdict: one of the constants above; empty if there is nothing to judge.
        seconds: that the part took, in the line that ends it.
        timing: of ``Timing.to_dict``.
    """

    part: str
    name: str
    value: str
    verdict: str = ""
    seconds: float | None = None
    timing: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class Report:
    """Where a part writes its rows.

    Attributes:
        judged: targets are; they are those of a GPU at full work.
    """

    path: Path
    part: str
    judged: bool = True

    def write(self, name: str, value: str, verdict: str = "", **more: Any) -> None:
        """Appends a row; it is there, whatever happens to this process later."""
        row = Row(part=self.part, name=name, value=value, verdict=verdict, **more)
        with open(self.path, "a") as stream:
            stream.write(json.dumps(dataclasses.asdict(row)) + "\n")

    def check(self, name: str, good: bool, value: str) -> None:
        """A row that is right or wrong."""
        self.write(name, value, OK if good else FAILED)

    def target(
        self, name: str, measured: float, *, least: float = -math.inf, most: float = math.inf, text: str
    ) -> None:
        """A row with a figure that should be ``least`` or more, and ``most`` or less."""
        verdict = REACHED if least <= measured <= most else MISSED
        self.write(name, text, verdict if self.judged else "")

    def time(self, timing: Timing) -> None:
        """A row for each contender, and one for the facts."""
        self.write(
            timing.title, "; ".join(f"{name} {value}" for name, value in timing.facts.items()), timing=timing.to_dict()
        )
        for name, row in timing.rows.items():
            self.write(f"  {name}", f"{row.rate:,.0f} {timing.unit}/s [{row.rates.min():,.0f}, {row.rates.max():,.0f}]")

    @contextlib.contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """A failure in the block is a row, and the part goes on."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 (whatever a GPU or a library does)
            traceback.print_exc(file=sys.stderr)
            self.write(name, last_line(str(error)) or type(error).__name__, FAILED)


def last_line(text: str) -> str:
    """The last line that says why something failed, without control characters."""
    return "".join(filter(str.isprintable, errors.last_line(text)))


def read_rows(path: Path) -> list[Row]:
    """The rows of a file; a last line that a killed process left half-written does not count."""
    rows = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError, TypeError):
            rows.append(Row(**json.loads(line)))
    return rows


def table_of(rows: list[Row]) -> str:
    """All rows as text; then how many have which verdict."""
    counts = {one: sum(row.verdict == one for row in rows) for one in (OK, FAILED, REACHED, MISSED, LEFT_OUT)}
    labels = [f"{row.part}: {row.name}" for row in rows]
    width = max(map(len, labels), default=0)
    lines = [
        f"{row.verdict:<{len(MISSED)}}  {label:<{width}}  {shortened(row.value)}".rstrip()
        for row, label in zip(rows, labels, strict=True)
    ]
    return "\n".join([*lines, ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)])


def shortened(text: str) -> str:
    """At most ``VALUE_WIDTH`` characters."""
    return text if len(text) <= VALUE_WIDTH else text[: VALUE_WIDTH - 3] + "..."
