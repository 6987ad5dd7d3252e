"""Paired comparison of several networks on the same benchmark."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.errors import ProtocolError
from benchmarks.scoring.intervals import Interval, percentile_interval, resamples
from benchmarks.scoring.results import Scores
from benchmarks.scoring.samples import lower_is_better
from benchmarks.scoring.saved import SavedResult, read_results

_IDENTITY = ("name", "path", "digest", "precision", "step", "backbone", "degradation")  # facts that tell networks apart


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Results of several networks on one benchmark, scored on the same pairs or probes.

    Attributes:
        results: one per network, the baseline first.
    """

    results: Sequence[Scores]

    @functools.cached_property
    def intervals(self) -> list[dict[str, Interval]]:
        """For each other network the paired 95 % interval of each metric's difference from the baseline.

        Each bootstrap round draws the same people for both networks.
        """
        names = [name for name in self._resamples[0] if name in self.results[0].metrics]
        return [{name: self._paired(name, 0, other) for name in names} for other in range(1, len(self.results))]

    def own_intervals(self, number: int) -> dict[str, Interval]:
        """The 95 % bootstrap interval of each metric and threshold of a network."""
        return {name: percentile_interval(values) for name, values in self._resamples[number].items()}

    def best(self, metric: str) -> int | None:
        """The network whose metric is better than that of every other one, by paired 95 % intervals; None if none is."""
        sign = -1 if lower_is_better(metric) else 1
        values = [sign * result.metrics[metric] for result in self.results]
        best = int(np.argmax(values))
        if metric not in self._resamples[best]:  # the deviation over folds
            return None
        gains = [self._paired(metric, other, best) for other in range(len(values)) if other != best]
        return best if all(sign * low > 0 and sign * high > 0 for low, high in gains) else None

    def _paired(self, metric: str, first: int, other: int) -> Interval:
        return percentile_interval(self._resamples[other][metric] - self._resamples[first][metric])

    @functools.cached_property
    def _resamples(self) -> list[dict[str, np.ndarray]]:
        """(rounds,) values of each metric and threshold, for each network."""
        return [
            {
                setting.format(name): values
                for setting, samples in result.settings.items()
                for name, values in resamples(samples.statistics, samples.identities).items()
            }
            for result in self.results
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """The results of one network by benchmark, and the file that holds them, or the network's own."""

    path: Path
    results: Mapping[str, Scores]


def read_networks(paths: Sequence[Path]) -> list[Network]:
    """The networks in some files, in their order; a file may hold the results of several.

    Raises:
        ProtocolError: a file is not a result, or has two results of one network on one benchmark.
    """
    networks = []
    for path in paths:
        found: dict[tuple[str, ...], dict[str, SavedResult]] = {}
        for result in read_results(path):
            results = found.setdefault(tuple(str(result.checkpoint.get(name)) for name in _IDENTITY), {})
            if result.benchmark in results:
                raise ProtocolError(
                    f"{path}: two results of one network on {result.benchmark}; score it once, or give --name"
                )
            results[result.benchmark] = result
        networks += [Network(path=path, results=results) for results in found.values()]
    return networks


def compare_networks(networks: Sequence[Network]) -> tuple[list[Comparison], dict[str, list[int]]]:
    """Compares each benchmark that all networks were scored on.

    Returns:
        The comparisons; and for each other benchmark the numbers of the networks that were scored on it.

    Raises:
        ProtocolError: the networks have no benchmark in common, or were scored on different pairs or probes.
    """
    numbers = range(len(networks))
    holders = {
        name: [one for one in numbers if name in networks[one].results] for one in networks for name in one.results
    }
    common = [name for name, found in holders.items() if len(found) == len(networks)]
    if not common:
        files = ", ".join(dict.fromkeys(str(one.path) for one in networks))
        raise ProtocolError(f"{files}: no benchmark in common; compare results of the same one")
    first = networks[0]
    for name in common:
        for other in networks[1:]:
            if not same_protocol(first.results[name], other.results[name]):
                raise ProtocolError(
                    f"{other.path}: {name}: scored on other pairs or probes than {first.path}; score both networks on"
                    " the same images and landmarks, with the same images missing"
                )
    comparisons = [Comparison([one.results[name] for one in networks]) for name in common]
    return comparisons, {name: found for name, found in holders.items() if name not in common}


def same_protocol(first: Scores, other: Scores) -> bool:
    """Whether both were scored on the same images in the same roles, so that they can be paired."""
    return (
        set(first.settings) == set(other.settings)
        and set(first.metrics) == set(other.metrics)
        and all(samples.same_protocol(other.settings[name]) for name, samples in first.settings.items())
    )
