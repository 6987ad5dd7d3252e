"""Samples with scores and a ROC-like curve: verification pairs, and the probes of an open set."""

from __future__ import annotations

import dataclasses
import functools
from typing import ClassVar

import numpy as np

from benchmarks.scoring.arrays import check_array
from benchmarks.scoring.intervals import Interval, deviation_interval, percentiles, resamples
from benchmarks.scoring.metrics import Roc, RocSamples, fold_decisions
from benchmarks.scoring.samples import HISTOGRAM_EDGES, MAX_REPORTED, Samples

MISSED = -2.0  # score of a mated probe that is not identified; below every cosine
CURVE_POINTS = 100
MIN_FAR = 1e-6  # left end of a curve
MAX_FOLDS = 1 << 15
THRESHOLD_RATES = (0.1, 0.01, 0.001)  # of thresholds, where the protocol names no rates


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

        return percentiles(resamples(true_rates, self.identities)["band"])

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
