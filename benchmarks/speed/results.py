"""The output of ``bench speed``: tables, JSON, a bar chart."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter

from benchmarks.engine.measurement import processor
from benchmarks.report.document import Grid, as_text
from benchmarks.report.style import png
from benchmarks.speed.timing import Facts, Role, Timing, cores
from shards.files import write_bytes

_RATIO_COLUMNS: dict[Role, str] = {"baseline": "x baseline", "floor": "of the floor"}
_COLORS: dict[Role, str] = {"baseline": "tab:gray", "ours": "tab:blue", "floor": "tab:green"}
_QUICK_WARNING = "quick run: too little work for its times and ratios to be trusted"
_DALI = ("nvidia-dali-cuda120", "nvidia-dali-cuda130")  # one of them is installed, see docs/faq.md
_LIBRARIES = ("numpy", "pillow", "simplejpeg", *_DALI, "torch")  # OpenCV's package has several names


def as_table(timing: Timing, *, quick: bool) -> str:
    """The table, the facts, and a warning after a quick run."""
    roles = [role for role in _RATIO_COLUMNS if any(row.role == role for row in timing.rows.values())]
    rows = []
    for name, row in timing.rows.items():
        found = [timing.ratios(name, role) for role in roles]
        ratios = ["" if one is None else f"{np.median(one):.2f} [{one.min():.2f}, {one.max():.2f}]" for one in found]
        rows.append([name, f"{1e6 / row.rate:,.1f}", as_rate(row.rate), *ratios])
    header = ["", "us each", f"{timing.unit}/s", *(_RATIO_COLUMNS[role] for role in roles)]
    table = as_text(Grid(caption=timing.title, header=header, rows=rows))
    return "\n".join([table, *filter(None, [as_line(timing.facts), _QUICK_WARNING * quick])])


def as_line(facts: Facts) -> str:
    """``cores: 2, python: 3.11``."""
    return ", ".join(f"{name}: {value}" for name, value in facts.items())


def as_rate(rate: float) -> str:
    """Whole units per second; three digits below 100."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def machine() -> Facts:
    """Processor, cores, system, scratch folder and library versions."""
    facts = {"processor": processor(), "cores": str(cores()), "system": platform.platform()}
    facts |= {"files in": tempfile.gettempdir(), "python": platform.python_version(), "opencv": cv2.__version__}
    for library in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            facts[library] = importlib.metadata.version(library)
    return facts


def write_json(timings: Sequence[Timing], path: Path, *, quick: bool) -> None:
    """Writes every round of every contender, and the machine."""
    content = [{**timing.to_dict(), "machine": machine(), "quick": quick} for timing in timings]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())


def write_chart(timings: Sequence[Timing], path: Path, *, quick: bool) -> None:
    """Writes a PNG with the median rates as bars, and the slowest and fastest round of each."""
    heights = [0.5 + 0.34 * len(timing.rows) for timing in timings]
    figure = Figure(layout="constrained", figsize=(8.5, sum(heights) + 0.5 * len(timings)))
    parts = figure.subfigures(len(timings), 1, squeeze=False, height_ratios=heights)
    for timing, part in zip(timings, parts[:, 0], strict=True):
        _draw_bars(timing, part.subplots())
        part.suptitle(timing.title + f"\n{_QUICK_WARNING}" * quick, fontsize=10, x=0.01, ha="left", parse_math=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, png(figure))


def _draw_bars(timing: Timing, axes: Axes) -> None:
    for place, (name, row) in enumerate(timing.rows.items()):
        spread = [[row.rate - row.rates.min()], [row.rates.max() - row.rate]]
        axes.barh(name, row.rate, xerr=spread, color=_COLORS[row.role], capsize=3)
        ratios = timing.ratios(name, "baseline")
        text = f" {as_rate(row.rate)}" + ("" if ratios is None else f" ({np.median(ratios):.2f} x)")
        axes.text(row.rates.max(), place, text, va="center", fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.25)
    axes.set_xlabel(f"{timing.unit}/s", fontsize=9)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.tick_params(labelsize=8)
    roles = sorted({row.role for row in timing.rows.values()}, key=list(_COLORS).index)
    patches = [Patch(color=_COLORS[role], label=role) for role in roles]
    axes.legend(handles=patches, ncols=3, fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1, 1))
