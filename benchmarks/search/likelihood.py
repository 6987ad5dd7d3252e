"""From scores to likelihood ratios: logistic regression, its cost Cllr, and intervals.

A likelihood ratio (LR) says how much more probable a score is if two images show one person than if they show two people.
It is no probability of being one person: that also depends on the number of possible people. LRs are given as
log10.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.special

from benchmarks.scoring.intervals import Interval, percentile_interval, percentiles, resamples
from benchmarks.scoring.metrics import check_values

CURVE_POINTS = 201
FOLDS = 10  # of people, for the held-out Cllr
MAX_STEPS, MIN_STEP = 100, 1e-10
BINS = 2048  # of scores, for the bootstrap: a hundred thousand pairs need not be fitted 500 times
LN10 = float(np.log(10))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """log10 LR = intercept + slope * score, within bounds.

    Attributes:
        slope: per unit of score.
        intercept: log10 LR at score 0.
        scores: lowest and highest score of the calibration; beyond them, the LR is the one at that score.
        bounds: lowest and highest log10 LR that so many pairs can support: log10 of 1 / (genuine pairs + 1), and of
            impostor pairs + 1.
    """

    slope: float
    intercept: float
    scores: Interval
    bounds: Interval

    def log10(self, scores: np.ndarray) -> np.ndarray:
        """(N,) float64 log10 LR of (N,) scores."""
        return np.clip(self.unbounded(np.clip(scores, *self.scores)), *self.bounds)

    def unbounded(self, scores: np.ndarray) -> np.ndarray:
        """(N,) float64, without bounds."""
        return self.intercept + self.slope * np.asarray(scores, np.float64)


def fit_line(scores: np.ndarray, genuine: np.ndarray, weights: np.ndarray | None = None) -> Line:
    """Fits a logistic regression in which both kinds of pairs weigh the same: the log odds are then log LR.

    The targets are those of Platt, not 0 and 1: (n + 1) / (n + 2) for n genuine pairs, 1 / (m + 2) for m impostors. So the
    line is finite even if the scores of both kinds do not overlap.

    Args:
        scores: (N,) finite.
        genuine: (N,) bool, with both values.
        weights: (N,), how many times each pair counts, above 0.

    Source: Platt, Probabilistic outputs for support vector machines, 1999; Morrison, Tutorial on logistic-regression
        calibration and fusion, Australian Journal of Forensic Sciences, 2013.
    """
    weights = np.ones(len(scores)) if weights is None else np.asarray(weights, np.float64)
    counts = np.array([weights[~genuine].sum(), weights[genuine].sum()])
    balanced = weights / (2 * counts[genuine.astype(int)])
    targets = np.where(genuine, (counts[1] + 1) / (counts[1] + 2), 1 / (counts[0] + 2))
    centre = float(np.average(scores, weights=balanced))
    spread = float(np.sqrt(np.average((scores - centre) ** 2, weights=balanced))) or 1.0  # a resample of one score
    offset, slope = _newton((scores - centre) / spread, targets, balanced) / LN10
    return Line(
        slope=float(slope / spread),
        intercept=float(offset - slope * centre / spread),
        scores=(float(scores.min()), float(scores.max())),
        bounds=(-float(np.log10(counts[1] + 1)), float(np.log10(counts[0] + 1))),
    )


def _newton(inputs: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Offset and slope (natural logarithm) with the least weighted cross-entropy, by Newton's method with halved steps."""

    def cost(line: np.ndarray) -> float:
        odds = line[0] + line[1] * inputs
        return float((weights * (np.logaddexp(0, odds) - targets * odds)).sum())

    line = np.zeros(2)
    current = cost(line)
    for _ in range(MAX_STEPS):
        shares = scipy.special.expit(line[0] + line[1] * inputs)
        slopes, curves = weights * (shares - targets), weights * shares * (1 - shares)
        mixed = (curves * inputs).sum()
        curvature = np.array([[curves.sum(), mixed], [mixed, (curves * inputs**2).sum()]])
        step = np.linalg.lstsq(curvature, np.array([slopes.sum(), (slopes * inputs).sum()]))[0]
        while (lower := cost(line - step)) > current and np.abs(step).max() > MIN_STEP:
            step = step / 2
        if np.abs(step).max() <= MIN_STEP:
            break
        line, current = line - step, lower
    return line


def cllr(log10: np.ndarray, genuine: np.ndarray) -> float:
    """Cost of likelihood ratios, in bits: 0 is perfect, 1 is what LR 1 for all pairs costs.

    Source: Bruemmer and du Preez, Application-independent evaluation of speaker detection, 2006.
    """
    return mean_cost(costs_in_bits(log10, genuine), genuine, np.ones(len(log10)))


def costs_in_bits(log10: np.ndarray, genuine: np.ndarray) -> np.ndarray:
    """(N,) cost of each likelihood ratio."""
    return np.logaddexp(0, np.where(genuine, -log10, log10) * LN10) / np.log(2)


def mean_cost(bits: np.ndarray, genuine: np.ndarray, weights: np.ndarray) -> float:
    """Mean of weighted costs; both kinds of pairs weigh the same."""
    costs = [np.average(bits[kind], weights=weights[kind]) for kind in (genuine, ~genuine)]
    return float(sum(costs) / 2)


def min_cllr(scores: np.ndarray, genuine: np.ndarray) -> float:
    """Cllr of the best monotonic calibration of these very pairs (pool adjacent violators)."""
    from scipy.optimize import isotonic_regression  # a third of a second, which no search needs

    places = np.unique(scores, return_inverse=True)[1]
    hits, misses = np.bincount(places, genuine) / genuine.sum(), np.bincount(places, ~genuine) / (~genuine).sum()
    share = isotonic_regression(hits / (hits + misses), weights=hits + misses).x
    return float(-(scipy.special.xlogy(hits, share) + scipy.special.xlogy(misses, 1 - share)).sum() / (2 * np.log(2)))


def held_out(scores: np.ndarray, genuine: np.ndarray, identities: np.ndarray) -> np.ndarray:
    """(N,) log10 LR of each pair by a line from pairs of other people.

    People are dealt to ten groups; a pair goes with its first person, and no pair of the line shows anybody of that
    group. If no pairs of a kind are left, as where one person is in all of them, nothing is known: 0.
    """
    people = int(identities.max()) + 1
    groups = np.random.default_rng(0).permutation(people) % min(FOLDS, people)
    groups = groups[identities]
    log10 = np.zeros(len(scores))
    for fold in range(FOLDS):
        test, train = groups[:, 0] == fold, (groups != fold).all(1)
        if test.any() and genuine[train].any() and not genuine[train].all():
            log10[test] = fit_line(scores[train], genuine[train]).log10(scores[test])
    return log10


def _binned(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(B,) mean scores of ``BINS`` bins, the empty ones left out, and (N,) the bin of each score."""
    low, high = scores.min(), scores.max()
    bins = np.minimum((scores - low) / (high - low) * BINS, BINS - 1).astype(int)
    bins = np.unique(bins, return_inverse=True)[1]
    return np.bincount(bins, scores) / np.bincount(bins), bins


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ratios:
    """log10 likelihood ratios of N scores, float64 each.

    Attributes:
        log10: the best estimate.
        low: lower end of its 95 % interval.
        high: upper end.
        bounded: (N,) bool, whether the score or the LR is beyond what the calibration supports.
    """

    log10: np.ndarray
    low: np.ndarray
    high: np.ndarray
    bounded: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fitted:
    """A line and how far it can be trusted.

    Attributes:
        line: from all pairs.
        curve_scores: (K,) scores at which the interval is stored.
        curve_low: (K,) lower end of the 95 % interval of log10 LR.
        curve_high: (K,) upper end.
        cllr: of held-out people, with its 95 % interval.
        cllr_interval: see ``cllr``.
        min_cllr: of the best monotonic calibration.
        misleading: shares of genuine pairs with LR below 1, and of impostors with LR above 1, held out.
    """

    line: Line
    curve_scores: Sequence[float]
    curve_low: Sequence[float]
    curve_high: Sequence[float]
    cllr: float
    cllr_interval: Interval
    min_cllr: float
    misleading: tuple[float, float]

    def ratios(self, scores: np.ndarray) -> Ratios:
        """The likelihood ratios of (N,) scores."""
        inside, plain = np.clip(scores, *self.line.scores), self.line.unbounded(scores)
        log10 = self.line.log10(scores)
        return Ratios(
            log10=log10,
            low=np.minimum(np.interp(inside, self.curve_scores, self.curve_low), log10),  # rounding
            high=np.maximum(np.interp(inside, self.curve_scores, self.curve_high), log10),
            bounded=(inside != scores) | (plain != np.clip(plain, *self.line.bounds)),
        )


def fit(scores: np.ndarray, genuine: np.ndarray, identities: np.ndarray) -> Fitted:
    """Calibrates scores.

    Args:
        scores: (N,).
        genuine: (N,) bool.
        identities: (N, 2) int codes of the two people of each pair.

    Raises:
        TypeError: an argument has another type or shape.
    """
    check_values("scores", scores, "f")
    check_values("genuine", genuine, "b", len(scores))
    check_values("identities", identities, "iu", len(scores), 2)
    scores = np.asarray(scores, np.float64)
    line = fit_line(scores, genuine)
    curve = np.linspace(*line.scores, CURVE_POINTS)
    unseen = held_out(scores, genuine, identities)

    centres, bins = _binned(scores)
    kinds = np.repeat([False, True], len(centres))
    bits = costs_in_bits(unseen, genuine)

    def resampled(weights: np.ndarray) -> dict[str, np.ndarray | float]:
        counts = np.bincount(bins + len(centres) * genuine, weights, 2 * len(centres))
        used = counts > 0
        if not kinds[used].any() or kinds[used].all():
            return {}
        again = fit_line(np.tile(centres, 2)[used], kinds[used], counts[used])
        return {"curve": np.clip(again.unbounded(curve), *line.bounds), "cllr": mean_cost(bits, genuine, weights)}

    found = resamples(resampled, identities)
    low, high = percentiles(found["curve"])
    return Fitted(
        line=line,
        curve_scores=curve.tolist(),
        curve_low=low.tolist(),
        curve_high=high.tolist(),
        cllr=cllr(unseen, genuine),
        cllr_interval=percentile_interval(found["cllr"]),
        min_cllr=min_cllr(scores, genuine),
        misleading=(float((unseen[genuine] < 0).mean()), float((unseen[~genuine] > 0).mean())),
    )
