"""Comparisons as tables: metrics side by side, differences with their paired intervals."""

from __future__ import annotations

import dataclasses
import string
from pathlib import Path

from benchmarks.report.document import Grid
from benchmarks.report.tables import ABSENT, network_label, percent
from benchmarks.scoring.comparison import Comparison, read_comparisons
from benchmarks.scoring.intervals import Interval, has_width
from benchmarks.scoring.samples import unresolved_metrics
from benchmarks.scoring.saved import SavedResult
from shards.messages import printable

LETTERS = string.ascii_uppercase  # one per file


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComparisonTables:
    """Rendered comparisons.

    Attributes:
        grids: one table per benchmark.
        legend: lines that explain the letters and signs.
    """

    grids: list[Grid]
    legend: list[str]


def compare(paths: list[Path]) -> ComparisonTables:
    """Compares 2 to 26 result files; differences are from the first one, the baseline.

    Raises:
        ProtocolError: as ``read_comparisons``.
    """
    comparisons, others = read_comparisons(paths)
    return ComparisonTables(
        grids=[_grid(comparison) for comparison in comparisons],
        legend=[
            *_legend(comparisons[0].results, paths),
            *(
                printable(f"{name}: not compared, only in {', '.join(LETTERS[file] for file in files)}")
                for name, files in others.items()
            ),
        ],
    )


def _grid(comparison: Comparison) -> Grid:
    first, *others = comparison.results
    titles = [letter + " (partial)" * one.partial for letter, one in zip(LETTERS, comparison.results, strict=False)]
    header = ["", titles[0]]
    for letter, title in zip(LETTERS[1:], titles[1:], strict=False):
        header += [title, f"{letter} - A"]
    hidden = unresolved_metrics(first.settings)
    rows = []
    for name, baseline in first.metrics.items():
        if name in hidden:
            rows.append([name] + [ABSENT] * (len(header) - 1))
            continue
        row = [name, percent(baseline)]
        for result, intervals in zip(others, comparison.intervals, strict=True):
            value = result.metrics[name]
            row += [percent(value), _difference(value - baseline, intervals.get(name))]
        rows.append(row)
    return Grid(caption=f"{first.title}, %", header=header, rows=rows)


def _difference(difference: float, interval: Interval | None) -> str:
    """``+1.23 [+0.4, +2.1]*`` in percent."""
    text = f"{100 * difference:+.2f}"
    if interval is None or not has_width(interval):
        return text
    low, high = interval
    return f"{text} [{100 * low:+.1f}, {100 * high:+.1f}]{'*' if low > 0 or high < 0 else ' '}"


def _legend(results: list[SavedResult], paths: list[Path]) -> list[str]:
    return [
        *(
            printable(f"{letter}: {network_label(result.checkpoint)}, {path}")
            for letter, result, path in zip(LETTERS, results, paths, strict=False)
        ),
        "B - A: difference to the first file; [..]: its paired 95 % bootstrap interval over identities,"
        " unless all resamples give the same value; *: the interval excludes zero",
    ]
