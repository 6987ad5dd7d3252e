"""Results as CSV: a row for each network, benchmark and metric."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.report.labels import network_labels
from benchmarks.report.own_tables import metric_labels, threshold_labels
from benchmarks.scoring.results import Scores
from shards.messages import FORMULA_STARTS, printable

COLUMNS = (
    "network",
    "digest",
    "benchmark",
    "data",
    "metric",
    "key",
    "value",
    "low",
    "high",
    "n",
    "partial",
    "caveats",
    "date",
)


def as_csv(results: Sequence[Scores]) -> str:
    """Metrics as fractions and thresholds as cosines, with their 95 % intervals.

    ``n`` is the number of pairs or probes. Text that a spreadsheet would take for a formula gets an apostrophe.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(
        row for result, label in zip(results, _labels(results), strict=True) for row in _rows(result, label)
    )
    return stream.getvalue()


def _labels(results: Sequence[Scores]) -> list[str]:
    """The label of each result's network: equal for results of one network, distinct for others."""
    facts = [result.checkpoint for result in results]
    distinct = [one for number, one in enumerate(facts) if one not in facts[:number]]
    labels = network_labels(distinct)
    return [labels[distinct.index(one)] for one in facts]


def _rows(result: Scores, label: str) -> Iterator[list[Any]]:
    values = {**result.metrics, **result.thresholds}
    titles = {**metric_labels(result.benchmark, result.settings), **threshold_labels(result.benchmark, result.settings)}
    counts = {
        setting.format(name): len(samples.identities)
        for setting, samples in result.settings.items()
        for name in samples.statistics()
    }
    intervals = {**result.intervals, **result.threshold_intervals}
    facts = result.checkpoint
    network = [_text(label), _text(str(facts.get("digest", ""))), _text(result.benchmark), _text(result.data)]
    for name, title in titles.items():
        low, high = intervals.get(name, ("", ""))
        rest = [result.partial, _text("; ".join(result.caveats)), _text(str(result.measurement.get("date", "")))]
        yield [*network, _text(title), _text(name), values[name], low, high, counts[name], *rest]


def _text(text: str) -> str:
    text = printable(text)
    return f"'{text}" if text.startswith(tuple(FORMULA_STARTS)) else text
