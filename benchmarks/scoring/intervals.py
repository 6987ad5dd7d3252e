"""95 % confidence intervals: Wilson's for proportions, bootstrap over identities for everything else."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import scipy.special

LEVEL = 0.95
ROUNDS = 500
_Z = float(scipy.special.ndtri((1 + LEVEL) / 2))

_MIN_WIDTH = 1e-9  # rounding

Interval = tuple[float, float]


def has_width(interval: Interval) -> bool:
    """False if all resamples gave the same value, as with a perfect score: such an interval says nothing."""
    return interval[1] - interval[0] > _MIN_WIDTH


def wilson(successes: float, trials: int) -> Interval:
    """Wilson's score interval of a proportion, as fractions. Source: Wilson, JASA 1927."""
    share, spread = successes / trials, _Z**2 / trials
    centre = share + spread / 2
    half_width = _Z * math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    return max((centre - half_width) / (1 + spread), 0.0), min((centre + half_width) / (1 + spread), 1.0)


def deviation_interval(deviation: float, count: int) -> Interval:
    """Chi-squared interval of the standard deviation (divisor ``count``) of ``count`` normal values."""
    # chi2.ppf of scipy.stats, which takes half a second to import
    low, high = 2 * scipy.special.gammaincinv((count - 1) / 2, [(1 + LEVEL) / 2, (1 - LEVEL) / 2])
    return deviation * math.sqrt(count / low), deviation * math.sqrt(count / high)


def percentiles(values: np.ndarray) -> np.ndarray:
    """(2,) or (2, K) bounds of the middle 95 % of (R,) or (R, K) values."""
    return np.asarray(np.quantile(values, ((1 - LEVEL) / 2, (1 + LEVEL) / 2), axis=0))


def percentile_interval(values: np.ndarray) -> Interval:
    """``percentiles`` of (R,) values, as numbers."""
    low, high = percentiles(values).tolist()
    return low, high


def resamples(
    statistic: Callable[[np.ndarray], Mapping[str, np.ndarray | float]],
    identities: np.ndarray,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Metrics of resampled identities: two networks on the same samples see the same people in each round.

    Samples that share a person are not independent. So each round draws identities with replacement. The weight of a
    sample is the number of times its identity was drawn; for a sample of two identities, the product of both numbers.

    Args:
        statistic: (N,) sample weights -> metrics by name, scalars or (K,) vectors. It returns an empty mapping for
            weights that leave it undefined; such rounds are skipped.
        identities: (N, 2) int codes of the two identities of each sample; equal if it has one identity.

    Returns:
        (R,) or (R, K) values by name, one for each round that is not skipped.
    """
    rng = np.random.default_rng(seed)
    people = int(identities.max()) + 1
    first, second = identities.T
    metrics: dict[str, list[np.ndarray | float]] = {}
    for _ in range(rounds):
        drawn = np.bincount(rng.integers(0, people, people), minlength=people)
        for name, value in statistic(np.where(first == second, drawn[first], drawn[first] * drawn[second])).items():
            metrics.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in metrics.items()}
