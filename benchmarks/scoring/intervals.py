"""95 % intervals: Wilson's for proportions, bootstrap over identities for curves and means."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import scipy.stats

LEVEL = 0.95
ROUNDS = 500
_Z = float(scipy.stats.norm.ppf((1 + LEVEL) / 2))

Interval = tuple[float, float]


def wilson(successes: float, trials: int) -> Interval:
    """The interval of a proportion, fractions. Source: Wilson, JASA 1927."""
    share, spread = successes / trials, _Z**2 / trials
    middle = share + spread / 2
    reach = _Z * math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    return max((middle - reach) / (1 + spread), 0.0), min((middle + reach) / (1 + spread), 1.0)


def deviation_interval(deviation: float, count: int) -> Interval:
    """The interval of a standard deviation (divisor ``count``) of that many normal values, by the chi-squared law."""
    low, high = scipy.stats.chi2.ppf([(1 + LEVEL) / 2, (1 - LEVEL) / 2], count - 1)
    return deviation * math.sqrt(count / low), deviation * math.sqrt(count / high)


def bootstrap(
    statistic: Callable[[np.ndarray], Mapping[str, np.ndarray | float]],
    identities: np.ndarray,
    *,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Percentile intervals of a statistic of weighted samples, resampling identities with replacement.

    Samples that share a person are not independent: a sample's weight in a round is how often its identities
    were drawn, the product of both where they differ.

    Args:
        statistic: (N,) sample weights -> figures, or (K,) vectors of them, by name; none of a draw that it cannot
            judge, which is left out.
        identities: (N, 2) int codes of the two identities of each sample; equal where it has one.

    Returns:
        (2,) or (2, K) lower and upper bounds by name.
    """
    rng = np.random.default_rng(seed)
    people = int(identities.max()) + 1
    first, second = identities.T
    figures: dict[str, list[np.ndarray | float]] = {}
    for _ in range(rounds):
        times = np.bincount(rng.integers(0, people, people), minlength=people)
        for name, value in statistic(np.where(first == second, times[first], times[first] * times[second])).items():
            figures.setdefault(name, []).append(value)
    tails = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    return {name: np.quantile(np.array(values), tails, axis=0) for name, values in figures.items()}
