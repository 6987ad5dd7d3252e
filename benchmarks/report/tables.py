"""A result as tables and sentences."""

from __future__ import annotations

import functools
from typing import Any

from benchmarks.report.document import Grid, as_text
from benchmarks.report.own_tables import OWN, kind_label, own_label, tables_of
from benchmarks.report.published import PUBLISHED, TABLES, Table
from benchmarks.scoring.intervals import Interval, has_width
from benchmarks.scoring.results import Result
from benchmarks.scoring.samples import CurveSamples, unresolved_metrics
from shards.messages import counted, printable

ABSENT = "-"
_CONDITIONS = {"@d1": "4.2 m", "@d2": "2.6 m", "@d3": "1.0 m", "@full": "full size"}
_COUNT_PHRASES = {"genuine": "{:,} of them genuine", "gallery": "{:,} in the gallery"}
_COUNT_NOUNS = {"identities": "identity", "prepared": "preparation"}  # of other counts: their name in the singular


def result_text(result: Result) -> str:
    """What ``bench`` prints: the tables as aligned text, warnings and facts below."""
    tables = [as_text(grid) for grid in result_grids(result)]
    return "\n".join(["\n\n".join(tables), "", *map(printable, [*warnings(result), *facts(result)])])


def result_grids(result: Result) -> list[Grid]:
    """The tables of a benchmark in percent: metrics of this network, their intervals, published results.

    Metrics that the data set is too small to resolve are not shown.
    """
    shown = set(result.metrics) - set(unresolved_metrics(result.settings))
    tables = tables_of(result.benchmark, result.metrics)
    return [_grid(result, table) for table in tables if shown & set(table.columns)]


def _grid(result: Result, table: Table) -> Grid:
    names = list(table.columns)
    published = [row for row in PUBLISHED.get(result.benchmark, []) if any(name in row.metrics for name in names)]
    hidden = unresolved_metrics(result.settings)
    metrics = {name: value for name, value in result.metrics.items() if name not in hidden}
    intervals = {name: interval for name, interval in result.intervals.items() if name not in hidden}
    return Grid(
        caption=f"{result.title}{f': {table.title}' if table.title else ''}, %",
        header=["", *table.columns.values()],
        rows=[
            [
                network_label(result.checkpoint) + (" (partial)" if result.missing else ""),
                *(percent(metrics.get(name)) for name in names),
            ],
            ["  95 % interval", *(percent_range(intervals.get(name)) for name in names)],
            *([row.system, *(percent(row.metrics.get(name)) for name in names)] for row in published),
        ],
        ours=1,
        published=len(published),
    )


def network_label(checkpoint: dict[str, Any]) -> str:
    """Backbone, step and reduced precision of a network: ``spherenet20, step 100,000, bf16``."""
    parts = [checkpoint.get("backbone", "network")]
    if (step := checkpoint.get("step")) is not None:
        parts.append(f"step {step:,}")
    if (precision := checkpoint.get("precision", "fp32")) != "fp32":
        parts.append(precision)
    return ", ".join(parts)


def percent(value: float | None) -> str:
    """Formats a fraction in percent, without the sign."""
    return ABSENT if value is None else f"{100 * value:.2f}"


def percent_range(interval: Interval | None) -> str:
    """Formats an interval of fractions in percent, without the sign; one without width is not shown."""
    return ABSENT if interval is None or not has_width(interval) else f"{100 * interval[0]:.1f}-{100 * interval[1]:.1f}"


def metric_label(benchmark: str, name: str) -> str:
    """A metric's title in the tables: ``accuracy@8`` -> ``HR to LR, accuracy, 8 px``."""
    if benchmark in OWN:
        return own_label(name) or name
    for table in TABLES[benchmark]:
        if name in table.columns:
            return ", ".join(filter(None, [table.title, table.columns[name]]))
    return name


def setting_label(setting: str) -> str:
    """A setting's title: ``{}@8`` -> ``8 px``, ``{}@d1/51-130`` -> ``4.2 m, subjects 51-130``."""
    prefix, _, suffix = setting.partition("{}")
    condition, _, subjects = suffix.partition("/")
    before = "open set, " * prefix.startswith("open/") + "LR to LR, " * prefix.endswith("lr-lr/")
    name = _CONDITIONS.get(condition, f"{condition[1:]} px" if condition else "this network")
    return f"{before}{name}{f', subjects {subjects}' if subjects else ''}"


def warnings(result: Result) -> list[str]:
    """Warnings about missing images, data that is not comparable, and metrics that are not shown."""
    lines = []
    if result.missing:
        lines.append(
            f"Partial: {len(result.missing):,} of {counted(result.counts['images'], 'image')} could not be used;"
            f" pairs or probes left out: {result.counts['left_out']:,}."
        )
    if result.caveats:
        lines.append(f"Not comparable with the published rows: {'; '.join(result.caveats)}.")
    if hidden := unresolved_metrics(result.settings):
        curves = [samples for samples in result.settings.values() if isinstance(samples, CurveSamples)]
        impostors = min(samples.impostors for samples in curves)
        label = kind_label if result.benchmark in OWN else functools.partial(metric_label, result.benchmark)
        labels = dict.fromkeys(label(name) or name for name in hidden)
        lines.append(
            f"Not shown: {', '.join(labels)};"
            f" smallest resolvable {curves[0].false_rate}: {100 / impostors:.2g} % (1/{impostors:,})."
        )
    return lines


def facts(result: Result) -> list[str]:
    """Lines about the size of the protocol, the forward passes and the data, deviations and absent intervals."""
    counts = {name: count for name, count in result.counts.items() if name != "left_out"}
    passes = f"{counts.pop('embedded'):,} embedded, {counts.pop('cached'):,} from the cache"
    sizes = [_size(name, count, result.benchmark) for name, count in counts.items()]
    caveats = f" ({'; '.join(result.caveats)})" if result.caveats else ""
    return [
        f"{', '.join(sizes)}; {passes}; data: {result.data}{caveats}",
        *result.notes,
        *_deviations(result),
        *_without_interval(result),
    ]


def _size(name: str, count: int, benchmark: str) -> str:
    """A count in words: ``12 pairs``, ``6 of them genuine``."""
    if name in _COUNT_PHRASES:
        return _COUNT_PHRASES[name].format(count)
    words = counted(count, _COUNT_NOUNS.get(name) or name.replace("_", " ").removesuffix("s"))
    if name == "identities":
        return f"of {words}"
    return f"{words} a distance" if (name, benchmark) == ("probes", "scface") else words


def _deviations(result: Result) -> list[str]:
    """A line with the standard deviations of accuracy over folds, if the benchmark has any."""
    values = {
        setting: percent(result.metrics[name])
        for setting in result.settings
        if (name := setting.format("std")) in result.metrics
    }
    if list(values) == ["{}"]:
        return [f"Standard deviation of accuracy over folds: {values['{}']} %."]
    listed = "; ".join(f"{setting_label(setting)}: {value}" for setting, value in values.items())
    return [f"Standard deviation of accuracy over folds, %: {listed}."] if values else []


def _without_interval(result: Result) -> list[str]:
    """A line that explains absent intervals, if a metric of the tables has none because it would have no width."""
    hidden = unresolved_metrics(result.settings)
    tables = tables_of(result.benchmark, result.metrics)
    shown = {name for table in tables for name in table.columns} - set(hidden)
    if all(has_width(interval) for name, interval in result.intervals.items() if name in shown):
        return []
    return [f"An interval is {ABSENT} where all resamples give the same value."]
