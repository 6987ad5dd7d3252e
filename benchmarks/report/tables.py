"""A result as tables of text, and in sentences."""

from __future__ import annotations

from typing import Any

from benchmarks.report.document import Grid, as_text
from benchmarks.report.published import PUBLISHED, TABLES, Table
from benchmarks.scoring.results import Result
from benchmarks.scoring.samples import CurveSamples

ABSENT = "-"
_DISTANCES = {"@d1": "4.2 m", "@d2": "2.6 m", "@d3": "1.0 m"}
_COUNTED = {
    "genuine": "{} of them genuine",
    "gallery": "{} in the gallery",
    "identities": "of {} identities",
    "prepared": "{} preparations",
}
_BY_DISTANCE = {"probes": "{} probes a distance"}


def print_result(result: Result) -> str:
    """The tables as aligned text, with what was scored below them."""
    tables = [as_text(grid) for grid in grids(result)]
    return "\n".join(["\n\n".join(tables), "", *warnings(result), *facts(result)])


def grids(result: Result) -> list[Grid]:
    """This network's figures in percent, their intervals, and the published ones, for each table of the benchmark.

    Figures that the samples are too few for are left out.
    """
    return [
        _grid(result, table)
        for table in TABLES[result.benchmark]
        if any(name in result.metrics for name in table.columns)
    ]


def _grid(result: Result, table: Table) -> Grid:
    names = list(table.columns)
    others = [row for row in PUBLISHED[result.benchmark] if any(name in row.figures for name in names)]
    partial = " (partial)" if result.missing else ""
    ours = {name: value for name, value in result.metrics.items() if name not in unresolved(result)}
    spans = {name: interval for name, interval in result.intervals.items() if name in ours}
    return Grid(
        caption=f"{result.title}{': ' * bool(table.title)}{table.title}, %",
        header=["", *table.columns.values()],
        rows=[
            [network(result.checkpoint) + partial, *(percent(ours.get(name)) for name in names)],
            ["  95 % interval", *(span(spans.get(name)) for name in names)],
            *([row.system, *(percent(row.figures.get(name)) for name in names)] for row in others),
        ],
        ours=1,
        published=len(others),
    )


def network(checkpoint: dict[str, Any]) -> str:
    """``spherenet20, step 100,000, bf16``; full precision is not named."""
    step, precision = checkpoint.get("step"), checkpoint.get("precision", "fp32")
    parts = [
        checkpoint.get("backbone", "network"),
        *([] if step is None else [f"step {step:,}"]),
        *([] if precision == "fp32" else [precision]),
    ]
    return ", ".join(parts)


def percent(value: float | None) -> str:
    """A fraction, in percent without the sign."""
    return ABSENT if value is None else f"{100 * value:.2f}"


def span(interval: tuple[float, float] | None) -> str:
    """An interval of fractions, in percent without the sign."""
    return ABSENT if interval is None else f"{100 * interval[0]:.1f}-{100 * interval[1]:.1f}"


def heading(benchmark: str, name: str) -> str:
    """What tables call a figure: ``accuracy@8`` -> ``HR to LR, accuracy, 8 px``."""
    found = [(table.title, table.columns[name]) for table in TABLES[benchmark] if name in table.columns]
    return ", ".join(part for part in found[0] if part) if found else name


def label(setting: str) -> str:
    """``@8`` -> ``8 px``, ``@d1/51-130`` -> ``4.2 m, subjects 51-130``."""
    prefix, _, suffix = setting.partition("{}")
    condition, _, part = suffix.partition("/")
    name = _DISTANCES.get(condition, f"{condition[1:]} px" if condition else "this network")
    return f"{'LR to LR, ' if prefix else ''}{name}{f', subjects {part}' if part else ''}"


def unresolved(result: Result) -> list[str]:
    """Figures that the samples are too few for."""
    return [setting.format(name) for setting, samples in result.settings.items() for name in samples.unresolved()]


def warnings(result: Result) -> list[str]:
    """What a reader must know before the figures."""
    found = []
    if result.missing:
        found.append(
            f"Partial: {len(result.missing):,} of {result.counts['images']:,} images could not be used,"
            f" {result.counts['left_out']:,} pairs or probes were left out."
        )
    if result.doubts:
        found.append(f"Not comparable with the published rows: {'; '.join(result.doubts)}.")
    if names := unresolved(result):
        fewest = min(int((~s.genuine).sum()) for s in result.settings.values() if isinstance(s, CurveSamples))
        shown = ", ".join(heading(result.benchmark, name) for name in names)
        found.append(
            f"Not shown: {shown}; with {fewest:,} impostors no false rate below {100 / fewest:.2g} %, one of them, can be told."
        )
    return found


def facts(result: Result) -> list[str]:
    """What was scored, in a line or two."""
    counts = {name: f"{count:,}" for name, count in result.counts.items()}
    cost = f"{counts.pop('embedded')} embedded, {counts.pop('cached')} from the cache"
    counts.pop("left_out")
    phrases = {**_COUNTED, **(_BY_DISTANCE if result.benchmark == "scface" else {})}
    sizes = [phrases.get(name, f"{{}} {name.replace('_', ' ')}").format(count) for name, count in counts.items()]
    doubts = f" ({'; '.join(result.doubts)})" if result.doubts else ""
    return [f"{', '.join(sizes)}; {cost}; data: {result.data}{doubts}", *_deviations(result)]


def _deviations(result: Result) -> list[str]:
    """The standard deviations of accuracy, which no table has."""
    found = {setting: result.metrics.get(setting.format("std")) for setting in result.settings}
    known = {setting: percent(value) for setting, value in found.items() if value is not None}
    if list(known) == ["{}"]:
        return [f"Standard deviation of accuracy over folds: {known['{}']} %."]
    each = "; ".join(f"{label(setting)}: {value}" for setting, value in known.items())
    return [f"Standard deviation of accuracy over folds, %: {each}."] if known else []
