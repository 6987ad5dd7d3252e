"""What a protocol scored, sample by sample: enough for its figures, their intervals, curves and comparisons."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar

import numpy as np

from benchmarks.scoring.arrays import packed, require, unpacked
from benchmarks.scoring.digests import DIGEST_BYTES
from benchmarks.scoring.intervals import Interval, bootstrap, deviation_interval, wilson
from benchmarks.scoring.metrics import Roc, RocSamples, fold_decisions

MISSED = -2.0  # below every cosine: the score of a probe whose identity is not among the first ranks
CURVE_POINTS = 100
_FAR_LOW = 1e-6
_MOST_PEOPLE = 1 << 24
_MOST_FOLDS = 1 << 15


@dataclasses.dataclass(frozen=True, kw_only=True)
class Samples:
    """(N,) scored samples.

    Attributes:
        questions: (16,) uint8 digest of what was asked: images, how they were prepared, their roles.
        identities: (N, 2) int32 codes of the people of each sample; equal where it has one.

    Raises:
        ValueError: an array has another type, shape or range than stated.
    """

    kind: ClassVar[str]
    questions: np.ndarray
    identities: np.ndarray

    def __post_init__(self) -> None:
        require("questions", self.questions, "u", (DIGEST_BYTES,))
        require("identities", self.identities, "i", (max(len(self.identities), 1), 2), 0, _MOST_PEOPLE)

    def figures(self, weights: np.ndarray | None = None) -> dict[str, float]:
        """Figures by name; (N,) weights count a sample several times. Empty if such a draw cannot be judged."""
        raise NotImplementedError

    def proportions(self) -> dict[str, tuple[float, int]]:
        """Figures that are proportions: successes and trials."""
        return {}

    def unresolved(self) -> list[str]:
        """Figures that these samples are too few for."""
        return []

    def intervals(self) -> dict[str, Interval]:
        """95 % intervals: Wilson's of proportions, bootstrap over identities of the rest."""
        drawn = bootstrap(self.figures, self.identities)
        found = {name: (float(low), float(high)) for name, (low, high) in drawn.items()}
        return {**found, **{name: wilson(*counts) for name, counts in self.proportions().items()}}

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: arrays as base64 of little-endian bytes."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"kind": self.kind, **{name: packed(value) for name, value in fields.items()}}

    def same_questions(self, other: Samples) -> bool:
        """True if both were asked the same: the condition for a paired comparison."""
        return (
            type(self) is type(other)
            and np.array_equal(self.questions, other.questions)
            and np.array_equal(self.identities, other.identities)
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CurveSamples(Samples):
    """Samples with a curve of accepted genuine over accepted impostor ones.

    scores: (N,).  genuine: (N,) bool, some of each.  rates: (R,) false rates at which the true one is a figure.
    """

    scores: np.ndarray
    genuine: np.ndarray
    rates: np.ndarray

    def __post_init__(self) -> None:
        super().__post_init__()
        count = len(self.identities)
        require("scores", self.scores, "f", (count,))
        require("genuine", self.genuine, "b", (count,))
        require("rates", self.rates, "f", (self.rates.size,), 0, 1)
        if self.genuine.all() or not self.genuine.any():
            raise ValueError("genuine: of one kind only, expected genuine and impostor samples")

    def rate_name(self, rate: float) -> str:
        """Of the true rate at a false one."""
        raise NotImplementedError

    def unresolved(self) -> list[str]:
        """True rates at a false one that is less than one of the impostors there are."""
        impostors = int((~self.genuine).sum())
        return [self.rate_name(rate) for rate in self.rates if rate * impostors < 1 - 1e-9]

    @functools.cached_property
    def _sorted(self) -> RocSamples:
        return RocSamples(self.scores, self.genuine, self.scores <= MISSED)

    @functools.cached_property
    def roc(self) -> Roc:
        """The unweighted curve."""
        curve = self._sorted.curve()
        assert curve is not None, "there are samples of both kinds"
        return curve

    def grid(self) -> np.ndarray:
        """(K,) false rates at which the curve and its band are drawn."""
        return np.geomspace(max(1 / (~self.genuine).sum(), _FAR_LOW), 1.0, CURVE_POINTS)

    def band(self) -> np.ndarray:
        """(2, K) 95 % interval of the curve at ``grid``, by bootstrap over identities."""

        def heights(weights: np.ndarray) -> dict[str, np.ndarray | float]:
            curve = self._sorted.curve(weights)
            return {} if curve is None else {"band": curve.tar_at(self.grid())}

        return bootstrap(heights, self.identities)["band"]

    def same_questions(self, other: Samples) -> bool:
        return super().same_questions(other) and np.array_equal(self.genuine, other.genuine)  # type: ignore[attr-defined]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairSamples(CurveSamples):
    """Verification pairs. folds: (N,) int.  rates: FAR at which TAR is a figure."""

    kind = "pairs"
    folds: np.ndarray

    def __post_init__(self) -> None:
        super().__post_init__()
        require("folds", self.folds, "i", (len(self.identities),), 0, _MOST_FOLDS)

    def rate_name(self, rate: float) -> str:
        return f"tar@far={rate:g}"

    @functools.cached_property
    def right(self) -> np.ndarray:
        """(N,) bool: judged right by the k-fold protocol."""
        return fold_decisions(self.scores, self.genuine, self.folds)

    @functools.cached_property
    def fold_accuracies(self) -> np.ndarray:
        """(K,) accuracy of each fold that has a pair."""
        sizes = np.bincount(self.folds)
        return (np.bincount(self.folds, self.right) / np.maximum(sizes, 1))[sizes > 0]

    def figures(self, weights: np.ndarray | None = None) -> dict[str, float]:
        curve = self.roc if weights is None else self._sorted.curve(weights)
        if curve is None:
            return {}
        heights = curve.tar_at(self.rates)
        tars = {self.rate_name(rate): float(tar) for rate, tar in zip(self.rates, heights, strict=True)}
        if weights is not None:
            return {**tars, "auc": curve.auc, "accuracy": float(np.average(self.right, weights=weights))}
        folds = self.fold_accuracies
        return {**tars, "auc": curve.auc, "accuracy": float(folds.mean()), "std": float(folds.std())}

    def proportions(self) -> dict[str, tuple[float, int]]:
        return {"accuracy": (float(self.fold_accuracies.mean()) * len(self.right), len(self.right))}

    def intervals(self) -> dict[str, Interval]:
        folds = self.fold_accuracies
        return {**super().intervals(), "std": deviation_interval(float(folds.std()), len(folds))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankSamples(Samples):
    """Closed-set probes. ranks: (N,) int, from 1.  reported: (R,) ranks that are figures.  precisions: (N,) average precisions, or none."""

    kind = "ranks"
    ranks: np.ndarray
    reported: np.ndarray
    precisions: np.ndarray

    def __post_init__(self) -> None:
        super().__post_init__()
        count = len(self.identities)
        require("ranks", self.ranks, "i", (count,), 1)
        require("reported", self.reported, "i", (self.reported.size,), 1)
        require("precisions", self.precisions, "f", (count,) if self.precisions.size else (0,), 0, 1 + 1e-6)

    def figures(self, weights: np.ndarray | None = None) -> dict[str, float]:
        weights = np.ones(len(self.ranks)) if weights is None else weights
        if not weights.sum():
            return {}
        found = {f"rank{k}": float(np.average(self.ranks <= k, weights=weights)) for k in self.reported}
        if len(self.precisions):
            found["map"] = float(np.average(self.precisions, weights=weights))
        return found

    def proportions(self) -> dict[str, tuple[float, int]]:
        return {f"rank{k}": (int((self.ranks <= k).sum()), len(self.ranks)) for k in self.reported}

    def cmc(self, most: int) -> np.ndarray:
        """(most,) share of probes whose mate is within rank 1, 2, ... ``most``."""
        return (self.ranks[:, None] <= np.arange(1, most + 1)).mean(0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenSetSamples(CurveSamples):
    """Open-set probes: genuine are the mated ones, with the true identity's score or ``MISSED``; impostors the unmated, with their top score.

    rates: FPIR at which TPIR is a figure.  within: (1,) ranks that count as identified.
    """

    kind = "open-set"
    within: np.ndarray

    def __post_init__(self) -> None:
        super().__post_init__()
        require("within", self.within, "i", (1,), 1)

    def rate_name(self, rate: float) -> str:
        return f"tpir{self.within[0]}@fpir={rate:g}"

    def figures(self, weights: np.ndarray | None = None) -> dict[str, float]:
        curve = self.roc if weights is None else self._sorted.curve(weights)
        if curve is None:
            return {}
        heights = curve.tar_at(self.rates)
        tpirs = {self.rate_name(rate): float(tpir) for rate, tpir in zip(self.rates, heights, strict=True)}
        return {**tpirs, "auc": curve.auc}


_KINDS: dict[str, type[Samples]] = {kind.kind: kind for kind in (PairSamples, RankSamples, OpenSetSamples)}


def from_dict(record: dict[str, Any]) -> Samples:
    """What ``Samples.to_dict`` made. Raises: KeyError, TypeError, ValueError: it did not."""
    record = dict(record)
    return _KINDS[record.pop("kind")](**{name: unpacked(value) for name, value in record.items()})
