"""Scored samples of a protocol, from which metrics, intervals and comparisons are computed; ``curves`` has those with
scores.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from benchmarks.scoring.arrays import check_array, encode_array
from benchmarks.scoring.digests import DIGEST_BYTES
from benchmarks.scoring.intervals import Interval, percentile_interval, resamples, wilson

MAX_IDENTITIES = 1 << 20  # a bootstrap draws as many in each round
MAX_REPORTED = 100  # rates or ranks
_ERRORS = ("eer", "std")  # metrics of which less is better
HISTOGRAM_EDGES = np.linspace(-1, 1, 81)  # of cosines


def lower_is_better(metric: str) -> bool:
    """Whether a metric, such as ``lr-lr/eer@8``, counts errors."""
    return not set(re.split("[/@]", metric)).isdisjoint(_ERRORS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Samples:
    """N scored samples.

    Attributes:
        protocol_digest: (16,) uint8 digest of the images, their preparation and their roles.
        identities: (N, 2) int32 codes of the two identities of each sample; equal if it has one identity.

    Raises:
        ValueError: an array has the wrong type, shape or range.
    """

    kind: ClassVar[str]
    protocol_digest: np.ndarray
    identities: np.ndarray

    def __post_init__(self) -> None:
        check_array("questions", self.protocol_digest, "u", (DIGEST_BYTES,))  # its name in JSON
        check_array("identities", self.identities, "i", (max(len(self.identities), 1), 2), 0, MAX_IDENTITIES)

    def metrics(self, weights: np.ndarray | None = None) -> dict[str, float]:
        """Metrics by name, as fractions.

        Args:
            weights: (N,), how many times each sample counts.

        Returns:
            An empty mapping if the weights leave the metrics undefined.
        """
        raise NotImplementedError

    def statistics(self, weights: np.ndarray | None = None) -> dict[str, float]:
        """Metrics and thresholds by name; see ``metrics``."""
        return self.metrics(weights)

    def thresholds(self) -> dict[str, float]:
        """Cosines from which on a pair or a probe is accepted, by name, such as ``threshold@far=0.01``."""
        return {}

    def histograms(self) -> dict[str, list[int]]:
        """Counts of scores between ``HISTOGRAM_EDGES``, by kind of sample."""
        return {}

    def proportions(self) -> dict[str, tuple[float, int]]:
        """Successes and trials of the metrics that are proportions."""
        return {}

    def unresolved(self) -> list[str]:
        """Metrics that need more samples than there are."""
        return []

    def intervals(self) -> dict[str, Interval]:
        """95 % intervals by metric: Wilson's for proportions, bootstrap over identities for the rest."""
        thresholds = self.thresholds()
        intervals = {name: bounds for name, bounds in self._bootstrapped.items() if name not in thresholds}
        return {**intervals, **{name: wilson(*counts) for name, counts in self.proportions().items()}}

    def threshold_intervals(self) -> dict[str, Interval]:
        """95 % intervals by threshold: bootstrap over identities."""
        return {name: self._bootstrapped[name] for name in self.thresholds()}

    @functools.cached_property
    def _bootstrapped(self) -> dict[str, Interval]:
        found = resamples(self.statistics, self.identities)
        return {name: percentile_interval(values) for name, values in found.items()}

    def to_dict(self) -> dict[str, Any]:
        """The samples as JSON-serialisable fields."""
        record = {field.name: encode_array(getattr(self, field.name)) for field in dataclasses.fields(self)}
        return {"kind": self.kind, "questions": record.pop("protocol_digest"), **record}

    def same_protocol(self, other: Samples) -> bool:
        """Whether both score the same images in the same roles, so that they can be paired."""
        return (
            type(self) is type(other)
            and np.array_equal(self.protocol_digest, other.protocol_digest)
            and np.array_equal(self.identities, other.identities)
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankSamples(Samples):
    """Closed-set probes.

    Attributes:
        ranks: (N,) int, rank of the best mate, from 1.
        reported: (R,) int ranks that are metrics.
        precisions: (N,) average precisions, or (0,) if mAP is not a metric.
    """

    kind = "ranks"
    ranks: np.ndarray
    reported: np.ndarray
    precisions: np.ndarray

    def __post_init__(self) -> None:
        super().__post_init__()
        count = len(self.identities)
        check_array("ranks", self.ranks, "i", (count,), 1)
        check_array("reported", self.reported, "i", (min(self.reported.size, MAX_REPORTED),), 1)
        check_array("precisions", self.precisions, "f", (count,) if self.precisions.size else (0,), 0, 1 + 1e-6)

    def metrics(self, weights: np.ndarray | None = None) -> dict[str, float]:
        weights = np.ones(len(self.ranks)) if weights is None else weights
        if not weights.sum():
            return {}
        metrics = {f"rank{k}": float(np.average(self.ranks <= k, weights=weights)) for k in self.reported}
        if len(self.precisions):
            metrics["map"] = float(np.average(self.precisions, weights=weights))
        return metrics

    def proportions(self) -> dict[str, tuple[float, int]]:
        return {f"rank{k}": (int((self.ranks <= k).sum()), len(self.ranks)) for k in self.reported}

    def cmc(self, max_rank: int) -> np.ndarray:
        """(max_rank,) share of probes whose best mate is within rank 1, 2, ..., ``max_rank``."""
        return (self.ranks[:, None] <= np.arange(1, max_rank + 1)).mean(0)


def unresolved_metrics(settings: Mapping[str, Samples]) -> list[str]:
    """Full names of the metrics that need more samples than there are."""
    return [setting.format(name) for setting, samples in settings.items() for name in samples.unresolved()]
