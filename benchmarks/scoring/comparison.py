"""Paired comparison of several networks on the same benchmark."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np

from benchmarks.errors import ProtocolError
from benchmarks.scoring.intervals import Interval, bootstrap
from benchmarks.scoring.samples import Samples
from benchmarks.scoring.saved import SavedResult, read_results


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """Results of several networks on one benchmark.

    Attributes:
        results: one per network, the baseline first.
        intervals: for each other network, the paired 95 % interval of each metric's difference from the baseline.
    """

    results: list[SavedResult]
    intervals: list[dict[str, Interval]]


def read_comparisons(paths: list[Path]) -> tuple[list[Comparison], dict[str, list[int]]]:
    """Compares each benchmark that all result files contain.

    Returns:
        The comparisons; and for each other benchmark the numbers of the files that contain it.

    Raises:
        ProtocolError: a file is not a result, the files have no benchmark in common, or a benchmark was scored on
            different pairs or probes.
    """
    files = [{result.benchmark: result for result in read_results(path)} for path in paths]
    holders = {name: [number for number, file in enumerate(files) if name in file] for file in files for name in file}
    common = [name for name, numbers in holders.items() if len(numbers) == len(files)]
    if not common:
        raise ProtocolError(f"{', '.join(map(str, paths))}: no benchmark in common; compare results of the same one")
    comparisons = [_comparison([file[name] for file in files], paths) for name in common]
    return comparisons, {name: numbers for name, numbers in holders.items() if name not in common}


def _comparison(results: list[SavedResult], paths: list[Path]) -> Comparison:
    first, *others = results
    for other, path in zip(others, paths[1:], strict=True):
        if not _same_protocol(first, other):
            raise ProtocolError(
                f"{path}: {first.benchmark}: scored on other pairs or probes than {paths[0]}; score both networks on"
                " the same images and landmarks, with the same images missing"
            )
    return Comparison(results=results, intervals=[paired_intervals(first, other) for other in others])


def _same_protocol(first: SavedResult, other: SavedResult) -> bool:
    return (
        set(first.settings) == set(other.settings)
        and set(first.metrics) == set(other.metrics)
        and all(samples.same_protocol(other.settings[name]) for name, samples in first.settings.items())
    )


def paired_intervals(first: SavedResult, other: SavedResult) -> dict[str, Interval]:
    """95 % interval of each metric's difference, ``other - first``: each bootstrap round draws the same people for both."""
    intervals = {}
    for setting, samples in first.settings.items():
        bounds = bootstrap(functools.partial(_difference, samples, other.settings[setting]), samples.identities)
        intervals.update({setting.format(name): (float(low), float(high)) for name, (low, high) in bounds.items()})
    return intervals


def _difference(first: Samples, other: Samples, weights: np.ndarray) -> dict[str, float]:
    baseline, metrics = first.metrics(weights), other.metrics(weights)
    return {name: metrics[name] - baseline[name] for name in baseline}
