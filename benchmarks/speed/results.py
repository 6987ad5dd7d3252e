"""What ``bench speed`` gives: tables, JSON, a bar chart; for costs against size a plot."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from benchmarks.report.document import Grid, as_text
from benchmarks.speed.timing import Timing, machine, rounded
from shards.files import write_bytes

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter

_COLORS = {"baseline": "tab:gray", "ours": "tab:blue", "floor": "tab:green"}
_QUICK = "quick run: too little work for its times and ratios to be trusted"
_DPI = 130
_ABOVE = 2.0  # of the highest point: room
_LEAST_SPAN = 10.0  # of a logarithmic axis, times


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scaling:
    """What work costs as it grows.

    Attributes:
        stage: ``scale-build``.  title: of table and chart.  unit: what the sizes count, ``rows``.
        sizes: (K,) ascending.  costs: name of a cost, its unit last, ``opening seconds`` -> (K,) it.
        facts: about what was timed.
    """

    stage: str
    title: str
    unit: str
    sizes: list[int]
    costs: dict[str, list[float]]
    facts: dict[str, str]

    def exponent(self, name: str) -> float:
        """How cost grows: size to this power, from a straight line through the logarithms; 1 is linear."""
        slope = np.polyfit(np.log(self.sizes), np.log(self.costs[name]), 1)[0]
        return round(float(slope), 2) + 0.0  # without a sign before zero

    def grid(self) -> Grid:
        """A row a size, and last the exponents."""
        rows = [
            [f"{size:,}", *(f"{values[place]:,.4g}" for values in self.costs.values())]
            for place, size in enumerate(self.sizes)
        ]
        exponents = [f"{self.exponent(name):.2f}" for name in self.costs]
        return Grid(
            caption=self.title, header=[self.unit, *self.costs], rows=[*rows, ["grows with the power", *exponents]]
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**dataclasses.asdict(self), "exponents": {name: self.exponent(name) for name in self.costs}}


Measured = Timing | Scaling


def as_table(one: Measured, *, quick: bool) -> str:
    """The table, below it what was timed, and a warning if there was too little of it."""
    return "\n".join([as_text(one.grid()), *filter(None, [as_line(one.facts), _QUICK if quick else ""])])


def as_line(facts: Mapping[str, str]) -> str:
    """``cores: 2, python: 3.11``."""
    return ", ".join(f"{name}: {value}" for name, value in facts.items())


def write_json(measured: Sequence[Measured], path: Path, *, quick: bool) -> None:
    """Writes every round of every contender, and where it ran, whole or not at all."""
    found = [{**one.to_dict(), "machine": machine(), "quick": quick} for one in measured]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, (json.dumps(found, indent=1) + "\n").encode())


def write_chart(measured: Sequence[Measured], path: Path, *, quick: bool) -> None:
    """Writes a PNG: bars of rates with the least and greatest round; costs against size, a plot for each of their units."""
    heights = [0.5 + 0.34 * len(one.seconds) if isinstance(one, Timing) else 2.6 for one in measured]
    figure = plt.figure(layout="constrained", figsize=(8.5, sum(heights) + 0.5 * len(measured)))
    parts = figure.subfigures(len(measured), 1, squeeze=False, height_ratios=heights)
    for one, part in zip(measured, parts[:, 0], strict=True):
        if isinstance(one, Timing):
            _bars(one, part.subplots())
        else:
            _lines(one, part)
        part.suptitle(one.title + f"\n{_QUICK}" * quick, fontsize=10, x=0.01, ha="left", parse_math=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=_DPI)
    plt.close(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, buffer.getvalue())


def _bars(timing: Timing, ax: Any) -> None:
    names = list(timing.seconds)
    rates = [timing.rate(name) for name in names]
    medians = np.array([np.median(rate) for rate in rates])
    spread = [medians - [rate.min() for rate in rates], [rate.max() for rate in rates] - medians]
    ax.barh(names, medians, xerr=spread, color=[_COLORS[timing.roles[name]] for name in names], capsize=3)
    for place, (name, median) in enumerate(zip(names, medians, strict=True)):
        ratio = timing.ratios(name, "baseline")
        text = f" {rounded(median)}" + ("" if ratio is None else f" ({np.median(ratio):.2f} x)")
        ax.text(spread[1][place] + median, place, text, va="center", fontsize=8)
    ax.invert_yaxis()
    ax.margins(x=0.25)
    ax.set_xlabel(f"{timing.unit}/s", fontsize=9)
    ax.xaxis.set_major_formatter(_short)
    ax.tick_params(labelsize=8)
    roles = [Patch(color=color, label=role) for role, color in _COLORS.items() if role in timing.roles.values()]
    ax.legend(
        handles=roles,
        ncols=len(roles),
        fontsize=8,
        frameon=False,
        loc="lower right",
        bbox_to_anchor=(1, 1),
        borderpad=0,
    )


def _lines(scaling: Scaling, part: Any) -> None:
    """A panel a unit, the last word of a cost's name."""
    units = list(dict.fromkeys(name.split()[-1] for name in scaling.costs))
    panels = part.subplots(1, len(units), squeeze=False)[0]
    for unit, ax in zip(units, panels, strict=True):
        for name, values in scaling.costs.items():
            if name.split()[-1] == unit:
                label = f"{name.removesuffix(unit)}~ {scaling.unit}^{scaling.exponent(name):.2f}"
                ax.plot(scaling.sizes, values, "o-", markersize=4, label=label)
        ax.set(xscale="log", yscale="log")
        low, high = ax.get_ylim()
        ax.set_ylim(min(low, high / _LEAST_SPAN), high * _ABOVE)  # so that what hardly grows looks flat
        ax.set_xlabel(scaling.unit, fontsize=9)
        ax.set_ylabel(unit, fontsize=9)
        for axis, steps in ((ax.xaxis, (1,)), (ax.yaxis, (1, 2, 5))):
            axis.set_major_locator(LogLocator(subs=steps))
            axis.set_major_formatter(_short)
            axis.set_minor_formatter(NullFormatter())
        ax.grid(alpha=0.3)
        ax.tick_params(labelsize=8)
        ax.legend(fontsize=8)


def _short(value: float, position: int | None) -> str:
    """10000 as 10k."""
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1e3:g}k" if value >= 1e3 else f"{value:g}"
