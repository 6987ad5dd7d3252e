"""Verification metrics: ROC, TAR at FAR, AUC, k-fold accuracy; bootstrap over identities."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

_THRESHOLDS = np.linspace(-1.0, 1.0, 10001)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Roc:
    """A ROC curve from (0, 0) to (1, 1): (P,) false and true accept rates, fractions, both non-decreasing."""

    far: np.ndarray
    tar: np.ndarray

    def tar_at(self, far: float) -> float:
        """TAR by linear interpolation; where the curve is vertical, its upper end."""
        point = int(np.searchsorted(self.far, far * (1 + 1e-12), side="right")) - 1
        if point + 1 >= len(self.far):
            return float(self.tar[-1])
        share = max(far - self.far[point], 0.0) / (self.far[point + 1] - self.far[point])
        return float(self.tar[point] + share * (self.tar[point + 1] - self.tar[point]))

    @property
    def auc(self) -> float:
        """Area under the curve, trapezoid rule: tied pairs count half."""
        return float(np.trapezoid(self.tar, self.far))


def roc_curve(scores: np.ndarray, genuine: np.ndarray, weights: np.ndarray | None = None) -> Roc:
    """The ROC of (N,) scores with (N,) bool labels; pairs of equal score make one step. Weights (N,) count a pair several times."""
    order = np.argsort(-scores, kind="stable")
    scores, genuine = scores[order], genuine[order]
    weights = np.ones(len(scores)) if weights is None else weights[order].astype(np.float64)
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    accepted = np.cumsum(np.where(genuine, weights, 0.0))[last]
    mistaken = np.cumsum(np.where(genuine, 0.0, weights))[last]
    return Roc(far=np.append(0.0, mistaken / mistaken[-1]), tar=np.append(0.0, accepted / accepted[-1]))


def fold_accuracies(scores: np.ndarray, genuine: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """(K,) accuracies: each fold judged at the threshold that is best on all others.

    Args:
        scores: (N,) in -1..1.  genuine: (N,) bool.  folds: (N,) int, 0..K-1.

    Thresholds are 10001 values in -1..1, ties go to the largest; a score at or above it is a match.

    Source: LFW's protocol (Huang et al., 2007), thresholds as Lai & Lam, ICIP 2021.
    """
    correct = np.stack([_correct(scores[folds == fold], genuine[folds == fold]) for fold in range(folds.max() + 1)])
    others = correct.sum(0) - correct
    best = len(_THRESHOLDS) - 1 - np.argmax(others[:, ::-1], axis=1)
    return correct[np.arange(len(correct)), best] / np.bincount(folds)


def _correct(scores: np.ndarray, genuine: np.ndarray) -> np.ndarray:
    """(thresholds,) number of right decisions at each threshold."""
    matches, others = np.sort(scores[genuine]), np.sort(scores[~genuine])
    rejected_matches = np.searchsorted(matches, _THRESHOLDS, side="left")
    rejected_others = np.searchsorted(others, _THRESHOLDS, side="left")
    return len(matches) - rejected_matches + rejected_others


def bootstrap_intervals(
    statistic: Callable[[np.ndarray], dict[str, float]],
    identities: np.ndarray,
    *,
    rounds: int = 500,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of a statistic of weighted pairs, resampling identities with replacement.

    Pairs that share a person are not independent: a pair's weight in a round is how often its identities were
    drawn, the product of both where they differ.

    Args:
        statistic: (N,) pair weights -> figures by name; none of a draw that it cannot judge, which is left out.
        identities: (N, 2) int codes of the two identities of each pair.
        level: coverage, a fraction.
    """
    rng = np.random.default_rng(seed)
    people = int(identities.max()) + 1
    first, second = identities.T
    figures: dict[str, list[float]] = {}
    for _ in range(rounds):
        times = np.bincount(rng.integers(0, people, people), minlength=people)
        for name, value in statistic(np.where(first == second, times[first], times[first] * times[second])).items():
            figures.setdefault(name, []).append(value)
    tails: Sequence[float] = ((1 - level) / 2, (1 + level) / 2)
    return {name: tuple(np.quantile(values, tails).tolist()) for name, values in figures.items()}
