"""Scored samples of a protocol, from which metrics, intervals, curves and comparisons are computed."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from benchmarks.scoring.arrays import check_array, decode_array, encode_array
from benchmarks.scoring.digests import DIGEST_BYTES
from benchmarks.scoring.intervals import Interval, bootstrap, deviation_interval, wilson
from benchmarks.scoring.metrics import Roc, RocSamples, fold_decisions

MISSED = -2.0  # score of a mated probe that is not identified; below every cosine
CURVE_POINTS = 100
MIN_FAR = 1e-6  # left end of a curve
MAX_IDENTITIES = 1 << 20  # a bootstrap draws as many in each round
MAX_FOLDS = 1 << 15
MAX_REPORTED = 100  # rates or ranks
THRESHOLD_RATES = (0.1, 0.01, 0.001)  # of thresholds, where the protocol names no rates
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
        bounds = bootstrap(self.statistics, self.identities)
        return {name: (float(low), float(high)) for name, (low, high) in bounds.items()}

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
class CurveSamples(Samples):
    """Samples with a ROC-like curve.

    Attributes:
        scores: (N,) float.
        genuine: (N,) bool, with at least one True and one False.
        rates: (R,) false rates at which the true rate is a metric.
    """

    false_rate: ClassVar[str]  # abbreviation
    scores: np.ndarray
    genuine: np.ndarray
    rates: np.ndarray

    def __post_init__(self) -> None:
        super().__post_init__()
        count = len(self.identities)
        check_array("scores", self.scores, "f", (count,))
        check_array("genuine", self.genuine, "b", (count,))
        check_array("rates", self.rates, "f", (min(self.rates.size, MAX_REPORTED),), 0, 1)
        if self.genuine.all() or not self.genuine.any():
            raise ValueError("genuine: all values are equal, expected genuine and impostor samples")

    def rate_name(self, rate: float) -> str:
        """Name of the metric at a false rate."""
        raise NotImplementedError

    @property
    def impostors(self) -> int:
        """Number of impostor samples; 1 / impostors is the smallest false rate that can be resolved."""
        return int((~self.genuine).sum())

    def unresolved(self) -> list[str]:
        return [self.rate_name(rate) for rate in self.rates if not self._resolved(rate)]

    def _resolved(self, rate: float) -> bool:
        return rate * self.impostors >= 1 - 1e-9

    @functools.cached_property
    def _sorted(self) -> RocSamples:
        return RocSamples(self.scores, self.genuine, self.scores <= MISSED)

    @functools.cached_property
    def roc(self) -> Roc:
        """The unweighted curve."""
        curve = self._sorted.curve()
        assert curve is not None, "validated: both kinds of samples are present"
        return curve

    def grid(self) -> np.ndarray:
        """(K,) false rates at which the curve and its band are plotted."""
        return np.geomspace(max(1 / self.impostors, MIN_FAR), 1.0, CURVE_POINTS)

    @functools.cached_property
    def band(self) -> np.ndarray:
        """(2, K) 95 % band of the curve at ``grid``, by bootstrap over identities."""

        def true_rates(weights: np.ndarray) -> dict[str, np.ndarray | float]:
            curve = self._sorted.curve(weights)
            return {} if curve is None else {"band": curve.tar_at(self.grid())}

        return bootstrap(true_rates, self.identities)["band"]

    def metrics(self, weights: np.ndarray | None = None) -> dict[str, float]:
        curve = self._curve(weights)
        return {} if curve is None else self._metrics(curve, weights)

    def statistics(self, weights: np.ndarray | None = None) -> dict[str, float]:
        curve = self._curve(weights)
        return {} if curve is None else {**self._metrics(curve, weights), **self._thresholds(curve)}

    def thresholds(self) -> dict[str, float]:
        return self._thresholds(self.roc)

    def histograms(self) -> dict[str, list[int]]:
        scored = self.scores > MISSED
        kinds = {"genuine": self.genuine & scored, "impostors": ~self.genuine & scored}
        scores = np.clip(self.scores, -1, 1)
        return {kind: np.histogram(scores[rows], HISTOGRAM_EDGES)[0].tolist() for kind, rows in kinds.items()}

    def _curve(self, weights: np.ndarray | None) -> Roc | None:
        return self.roc if weights is None else self._sorted.curve(weights)

    def _metrics(self, curve: Roc, weights: np.ndarray | None) -> dict[str, float]:
        names = map(self.rate_name, self.rates)
        return {**dict(zip(names, curve.tar_at(self.rates).tolist(), strict=True)), "auc": curve.auc}

    def _thresholds(self, curve: Roc) -> dict[str, float]:
        """Thresholds at the rates that can be resolved."""
        rates = [rate for rate in (self.rates.tolist() or THRESHOLD_RATES) if self._resolved(rate)]
        names = [f"threshold@{self.false_rate.lower()}={rate:g}" for rate in rates]
        return dict(zip(names, curve.threshold_at(np.array(rates)).tolist(), strict=True))

    def same_protocol(self, other: Samples) -> bool:
        return super().same_protocol(other) and np.array_equal(self.genuine, other.genuine)  # type: ignore[attr-defined]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairSamples(CurveSamples):
    """Verification pairs; ``rates`` are FARs.

    Attributes:
        folds: (N,) int.
    """

    kind = "pairs"
    false_rate = "FAR"
    folds: np.ndarray

    def __post_init__(self) -> None:
        super().__post_init__()
        check_array("folds", self.folds, "i", (len(self.identities),), 0, MAX_FOLDS)

    def rate_name(self, rate: float) -> str:
        return f"tar@far={rate:g}"

    @functools.cached_property
    def correct(self) -> np.ndarray:
        """(N,) bool: whether each pair is classified correctly in the k-fold protocol."""
        return fold_decisions(self.scores, self.genuine, self.folds)

    @functools.cached_property
    def fold_accuracies(self) -> np.ndarray:
        """(K,) accuracy of each non-empty fold."""
        sizes = np.bincount(self.folds)
        return (np.bincount(self.folds, self.correct) / np.maximum(sizes, 1))[sizes > 0]

    def _metrics(self, curve: Roc, weights: np.ndarray | None) -> dict[str, float]:
        rates = super()._metrics(curve, weights)
        rest = {"auc": rates.pop("auc"), "eer": curve.eer}
        if weights is not None:
            return {**rates, "accuracy": float(np.average(self.correct, weights=weights)), **rest}
        folds = self.fold_accuracies
        return {**rates, "accuracy": float(folds.mean()), **rest, "std": float(folds.std())}

    def _thresholds(self, curve: Roc) -> dict[str, float]:
        return {**super()._thresholds(curve), "threshold@eer": curve.eer_threshold}

    def proportions(self) -> dict[str, tuple[float, int]]:
        return {"accuracy": (float(self.fold_accuracies.mean()) * len(self.correct), len(self.correct))}

    def intervals(self) -> dict[str, Interval]:
        folds = self.fold_accuracies
        return {**super().intervals(), "std": deviation_interval(float(folds.std()), len(folds))}


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenSetSamples(CurveSamples):
    """Open-set probes; ``rates`` are FPIRs.

    The genuine samples are mated probes with the score of their identity, or ``MISSED`` if they are not identified.
    The impostors are unmated probes with their highest score.

    Attributes:
        within: (1,) int, the rank up to which a probe counts as identified.
    """

    kind = "open-set"
    false_rate = "FPIR"
    within: np.ndarray

    def __post_init__(self) -> None:
        super().__post_init__()
        check_array("within", self.within, "i", (1,), 1)

    def rate_name(self, rate: float) -> str:
        return f"tpir{self.within[0]}@fpir={rate:g}"


def unresolved_metrics(settings: Mapping[str, Samples]) -> list[str]:
    """Full names of the metrics that need more samples than there are."""
    return [setting.format(name) for setting, samples in settings.items() for name in samples.unresolved()]


_KINDS: dict[str, type[Samples]] = {kind.kind: kind for kind in (PairSamples, RankSamples, OpenSetSamples)}


def from_dict(record: dict[str, Any]) -> Samples:
    """Decodes what ``Samples.to_dict`` returned. Raises: KeyError, TypeError, ValueError: invalid record."""
    record = dict(record)
    kind, protocol_digest = _KINDS[record.pop("kind")], decode_array(record.pop("questions"))
    return kind(protocol_digest=protocol_digest, **{name: decode_array(value) for name, value in record.items()})
