"""Results as tables and sentences."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.report.document import Grid, as_text
from benchmarks.report.labels import (
    ABSENT,
    network_labels,
    percent,
    percent_range,
    prefix_label,
    setting_label,
    statistic_label,
)
from benchmarks.report.own_tables import OWN, kind_label, metric_labels, tables_of
from benchmarks.report.published import Table, comparable_rows
from benchmarks.scoring.comparison import Comparison
from benchmarks.scoring.curves import CurveSamples
from benchmarks.scoring.intervals import Interval, has_width
from benchmarks.scoring.results import Scores
from benchmarks.scoring.samples import unresolved_metrics
from shards.messages import counted, printable

_COUNT_PHRASES = {"genuine": "{:,} of them genuine", "gallery": "{:,} in the gallery"}
_COUNT_NOUNS = {"identities": "identity", "prepared": "preparation"}  # of other counts: their name in the singular
INTERVAL = "  95 % interval"  # label of a row
CHANCE = 0.5  # AUC of scores that say nothing


def result_text(result: Scores) -> str:
    """What ``bench`` prints: the tables as aligned text, warnings and facts below."""
    tables = [as_text(_grid([result], table)) for table in result_tables(result) if table.printed]
    return "\n".join(["\n\n".join(tables), "", *map(printable, [*warnings(result), *facts(result)])])


def result_tables(result: Scores) -> list[Table]:
    """The tables of a benchmark of which a metric can be shown; one of all metrics for a benchmark that has none."""
    shown = set(result.metrics) - set(unresolved_metrics(result.settings))
    known = [table for table in tables_of(result.benchmark, result.metrics) if shown & set(table.columns)]
    return known or [Table(columns=metric_labels(result.benchmark, result.settings))]


def result_grids(results: Sequence[Scores], comparison: Comparison | None = None) -> list[Grid]:
    """The tables of a benchmark in percent: metrics of each network, their intervals, published results.

    Metrics that the data set is too small to resolve are not shown.

    Args:
        results: of one benchmark.
        comparison: of the same results; its significantly best metrics are emphasised.
    """
    return [_grid(results, table, comparison) for table in result_tables(results[0])]


def _grid(results: Sequence[Scores], table: Table, comparison: Comparison | None = None) -> Grid:
    first, names = results[0], list(table.columns)
    published = [row for row in comparable_rows(first) if any(name in row.metrics for name in names)]
    hidden = set(unresolved_metrics(first.settings))
    shown = [None if name in hidden else name for name in names]
    rows, labels = [], network_labels([result.checkpoint for result in results])
    for number, (label, result) in enumerate(zip(labels, results, strict=True)):
        intervals = {**(comparison.own_intervals(number) if comparison else {}), **result.intervals}
        rows.append(
            [label + " (partial)" * result.partial, *(percent(result.metrics.get(name or "")) for name in shown)]
        )
        rows.append([INTERVAL, *(percent_range(intervals.get(name or "")) for name in shown)])
    best = {
        (2 * winner, column)
        for column, name in enumerate(shown, 1)
        if comparison and name in first.metrics and (winner := comparison.best(name)) is not None
    }
    return Grid(
        caption=f"{first.title}{f': {table.title}' if table.title else ''}, %",
        header=["", *table.columns.values()],
        rows=[*rows, *([row.system, *(percent(row.metrics.get(name)) for name in names)] for row in published)],
        ours=2 * len(results),
        alone=len(results) == 1,
        published=len(published),
        best=frozenset(best),
    )


def difference_grids(comparison: Comparison) -> list[Grid]:
    """Differences of the other networks from the first one, in percentage points, and their paired intervals."""
    return [_difference_grid(comparison, table) for table in result_tables(comparison.results[0])]


def _difference_grid(comparison: Comparison, table: Table) -> Grid:
    first, *others = comparison.results
    labels = network_labels([result.checkpoint for result in comparison.results])
    hidden = set(unresolved_metrics(first.settings))
    names = [name if name in first.metrics and name not in hidden else None for name in table.columns]
    rows = []
    for label, other, intervals in zip(labels[1:], others, comparison.intervals, strict=True):
        cells = [
            (ABSENT, ABSENT)
            if name is None
            else _difference_parts(other.metrics[name] - first.metrics[name], intervals.get(name))
            for name in names
        ]
        rows.append([label, *(value for value, _ in cells)])
        rows.append([INTERVAL, *(interval for _, interval in cells)])
    title = f": {table.title}" if table.title else ""
    caption = f"{first.title}{title}, difference from {labels[0]}, percentage points"
    return Grid(caption=caption, header=["", *table.columns.values()], rows=rows, ours=len(rows))


def _difference_parts(value: float, interval: Interval | None) -> tuple[str, str]:
    """``+1.23*`` and ``+0.4 to +2.1``."""
    if interval is None or not has_width(interval):
        return f"{100 * value:+.2f}", ABSENT
    low, high = interval
    return f"{100 * value:+.2f}{'*' * (low > 0 or high < 0)}", f"{100 * low:+.1f} to {100 * high:+.1f}"


def difference(value: float, interval: Interval | None) -> str:
    """``+1.23 [+0.4, +2.1]*`` in percent."""
    text = f"{100 * value:+.2f}"
    if interval is None or not has_width(interval):
        return text
    low, high = interval
    return f"{text} [{100 * low:+.1f}, {100 * high:+.1f}]{'*' if low > 0 or high < 0 else ' '}"


def threshold_grids(results: Sequence[Scores], comparison: Comparison | None = None) -> list[Grid]:
    """The cosines from which on a pair or a probe is accepted: a row for each network and rate, a column for each setting."""
    first, grids = results[0], []
    curves = [name for name, samples in first.settings.items() if isinstance(samples, CurveSamples)]
    for prefix in dict.fromkeys(name.partition("{}")[0] for name in curves):
        settings = [name for name in curves if name.partition("{}")[0] == prefix]
        title = f"{prefix_label(prefix)}, " * bool(prefix)
        names = list(dict.fromkeys(name for setting in settings for name in first.settings[setting].thresholds()))
        columns = [setting_label(setting, first.benchmark).removeprefix(title) or "threshold" for setting in settings]
        rows = _threshold_rows(results, comparison, names, settings)
        if all(set(row[1:]) == {ABSENT} for row in rows[1::2]):  # of an earlier version
            rows = rows[::2]
        caption = f"{first.title}: {title}thresholds (cosine)"
        ours = len(rows) if len(rows) > 1 and rows[1][0] == INTERVAL else 0
        grids.append(Grid(caption=caption, header=["", *columns], rows=rows, ours=ours))
    return grids


def _threshold_rows(
    results: Sequence[Scores], comparison: Comparison | None, names: Sequence[str], settings: Sequence[str]
) -> list[list[str]]:
    rows = []
    for number, label in enumerate(network_labels([result.checkpoint for result in results])):
        thresholds = results[number].thresholds
        own = comparison.own_intervals(number) if comparison else {}
        intervals = {**own, **results[number].threshold_intervals}
        for name in names:
            full = [setting.format(name) for setting in settings]
            title = f"{label}, " * (len(results) > 1) + statistic_label(name).removeprefix("threshold at ")
            rows.append([title, *(_cosine(thresholds.get(one)) for one in full)])
            rows.append([INTERVAL, *(_cosine_range(intervals.get(one)) for one in full)])
    return rows


def _cosine(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.3f}"


def _cosine_range(interval: Interval | None) -> str:
    if interval is None or not has_width(interval):
        return ABSENT
    return f"{interval[0]:.3f} to {interval[1]:.3f}"


def warnings(result: Scores) -> list[str]:
    """Warnings about missing images, data that is not comparable, and metrics that are not shown."""
    lines = []
    if result.missing:
        images = f" of {counted(result.counts['images'], 'image')}" if "images" in result.counts else " images"
        left_out = result.counts.get("left_out")
        lines.append(
            f"Partial: {len(result.missing):,}{images} could not be used"
            + (f"; pairs or probes left out: {left_out:,}." if left_out is not None else ".")
        )
    if result.caveats:
        lines.append(f"Not comparable with published results, which are not shown: {'; '.join(result.caveats)}.")
    if result.benchmark == "pairs" and result.intervals.get("auc@full", (0, 1))[1] < CHANCE:
        lines.append("The AUC at full size is below chance: does the list say 0 for the same person, and 1 for two?")
    if hidden := unresolved_metrics(result.settings):
        curves = [samples for samples in result.settings.values() if isinstance(samples, CurveSamples)]
        impostors = min(samples.impostors for samples in curves)
        known = metric_labels(result.benchmark, result.settings)
        own = result.benchmark in OWN
        labels = dict.fromkeys((kind_label(name) if own else None) or known[name] for name in hidden)
        lines.append(
            f"Not shown: {', '.join(labels)};"
            f" smallest resolvable {curves[0].false_rate}: {100 / impostors:.2g} % (1/{impostors:,})."
        )
    return lines


def facts(result: Scores) -> list[str]:
    """Lines about the size of the protocol, the forward passes and the data, deviations and absent intervals."""
    passes = [f"{result.counts['embedded']:,} embedded", f"{result.counts['cached']:,} from the cache"]
    return [
        "; ".join([*filter(None, [_sizes(result)]), ", ".join(passes), _data(result)]),
        *result.notes,
        *_deviations(result),
        *_without_interval(result),
    ]


def shared_facts(results: Sequence[Scores]) -> list[str]:
    """Lines about the size of the protocol and the data, and absent intervals, of several networks' results."""
    lines = ["; ".join([*filter(None, [_sizes(result)]), _data(result)]) for result in results]
    lines += [line for result in results for line in [*result.notes, *_without_interval(result)]]
    return list(dict.fromkeys(lines))


def _sizes(result: Scores) -> str:
    counts = {name: count for name, count in result.counts.items() if name not in ("left_out", "embedded", "cached")}
    return ", ".join(_size(name, count, result.benchmark) for name, count in counts.items())


def _data(result: Scores) -> str:
    caveats = "; ".join(result.caveats)
    return f"data: {result.data}{f' ({caveats})' if caveats else ''}"


def _size(name: str, count: int, benchmark: str) -> str:
    """A count in words: ``12 pairs``, ``6 of them genuine``."""
    if name in _COUNT_PHRASES:
        return _COUNT_PHRASES[name].format(count)
    words = counted(count, _COUNT_NOUNS.get(name) or name.replace("_", " ").removesuffix("s"))
    if name == "identities":
        return f"of {words}"
    return f"{words} a distance" if (name, benchmark) == ("probes", "scface") else words


def _deviations(result: Scores) -> list[str]:
    """A line with the standard deviations of accuracy over folds, if the benchmark has any."""
    values = {
        setting: percent(result.metrics[name])
        for setting in result.settings
        if (name := setting.format("std")) in result.metrics
    }
    if list(values) == ["{}"]:
        return [f"Standard deviation of accuracy over folds: {values['{}']} %."]
    listed = "; ".join(f"{setting_label(setting, result.benchmark)}: {value}" for setting, value in values.items())
    return [f"Standard deviation of accuracy over folds, %: {listed}."] if values else []


def _without_interval(result: Scores) -> list[str]:
    """A line that explains absent intervals, if a metric of the tables has none because it would have no width."""
    hidden = unresolved_metrics(result.settings)
    shown = {name for table in result_tables(result) for name in table.columns} - set(hidden)
    if all(has_width(interval) for name, interval in result.intervals.items() if name in shown):
        return []
    return [f"An interval is {ABSENT} where all resamples give the same value."]
