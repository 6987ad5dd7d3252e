"""Comparisons as tables: metrics side by side, differences with their paired intervals."""

from __future__ import annotations

import dataclasses
import string
from collections.abc import Sequence

from benchmarks.report.document import Grid
from benchmarks.report.labels import ABSENT, network_label, network_names, percent
from benchmarks.report.own_tables import metric_labels
from benchmarks.report.tables import difference
from benchmarks.scoring.comparison import Comparison, Network, compare_networks
from benchmarks.scoring.samples import unresolved_metrics
from shards.messages import printable

LETTERS = string.ascii_uppercase  # one per network


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComparisonTables:
    """Rendered comparisons.

    Attributes:
        grids: one table per benchmark.
        legend: lines that explain the letters and signs.
    """

    grids: list[Grid]
    legend: list[str]


def comparison_tables(networks: Sequence[Network]) -> ComparisonTables:
    """Compares 2 to 26 networks; differences are from the first one, the baseline.

    Raises:
        ProtocolError: as ``compare_networks``.
    """
    comparisons, others = compare_networks(networks)
    return ComparisonTables(
        grids=[_grid(comparison) for comparison in comparisons],
        legend=[
            *_legend(networks),
            *(
                printable(f"{name}: not compared, only in {', '.join(LETTERS[number] for number in numbers)}")
                for name, numbers in others.items()
            ),
        ],
    )


def named(networks: Sequence[Network], names: Sequence[str] = ()) -> list[Network]:
    """The networks with distinct names: ``names``, or those that they have.

    Args:
        names: one for each network, or none.
    """
    facts = [next(iter(network.results.values())).checkpoint for network in networks]
    if names:
        facts = [{**one, "name": name} for one, name in zip(facts, names, strict=True)]
    return [_renamed(network, name) for network, name in zip(networks, network_names(facts), strict=True)]


def _renamed(network: Network, name: str) -> Network:
    results = {
        benchmark: dataclasses.replace(result, checkpoint={**result.checkpoint, "name": name})
        for benchmark, result in network.results.items()
    }
    return dataclasses.replace(network, results=results)


def _grid(comparison: Comparison) -> Grid:
    first, *others = comparison.results
    titles = [letter + " (partial)" * one.partial for letter, one in zip(LETTERS, comparison.results, strict=False)]
    header = ["", titles[0]]
    for letter, title in zip(LETTERS[1:], titles[1:], strict=False):
        header += [title, f"{letter} - A"]
    hidden = unresolved_metrics(first.settings)
    rows = []
    for name, label in metric_labels(first.benchmark, first.settings).items():
        if name in hidden:
            rows.append([label] + [ABSENT] * (len(header) - 1))
            continue
        baseline = first.metrics[name]
        row = [label, percent(baseline)]
        for result, intervals in zip(others, comparison.intervals, strict=True):
            value = result.metrics[name]
            row += [percent(value), difference(value - baseline, intervals.get(name))]
        rows.append(row)
    return Grid(caption=f"{first.title}, %", header=header, rows=rows)


def _legend(networks: Sequence[Network]) -> list[str]:
    labels = [network_label(next(iter(network.results.values())).checkpoint) for network in networks]
    return [
        *(
            printable(f"{letter}: {label}, {network.path}")
            for letter, label, network in zip(LETTERS, labels, networks, strict=False)
        ),
        "B - A: difference to the first network; [..]: its paired 95 % bootstrap interval over identities,"
        " unless all resamples give the same value; *: the interval excludes zero",
    ]
