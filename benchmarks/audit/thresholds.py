"""Thresholds from the scores themselves: a mixture of right and wrong labels, extreme values, false discoveries."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.special
import scipy.stats

MAD_TO_SIGMA = 1.4826
ROUNDS, TOLERANCE = 500, 1e-7  # of the expectation-maximisation
FIRST_SHARE, MIN_SHARE = 0.05, 1e-9
KNOWN_SHARE = 0.5  # of the wrong labels, whose true person is another identity of the set
_LOW, _MIDDLE = 0.1, 0.5  # quantiles that fit the extremes: more than half of all values may be outliers on top
MIN_SCALE = 1e-4
TAIL_SPREADS = 3.0  # below the mean of right labels; one of 700 is lower


def robust_normal(values: np.ndarray) -> tuple[float, float]:
    """Median, and the standard deviation that the median absolute deviation stands for."""
    centre = float(np.median(values))
    return centre, max(MAD_TO_SIGMA * float(np.median(np.abs(values - centre))), MIN_SCALE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extremes:
    """Gumbel distribution: the largest of many values, such as the similarity with the most similar stranger."""

    place: float
    scale: float

    @classmethod
    def fit(cls, values: np.ndarray) -> Extremes:
        """Fits by two low quantiles, so that outliers on top do not matter."""
        low, middle = np.quantile(values, (_LOW, _MIDDLE)).tolist()
        scale = max((middle - low) / (np.log(-np.log(_LOW)) - np.log(-np.log(_MIDDLE))), MIN_SCALE)
        return cls(place=middle + scale * float(np.log(-np.log(_MIDDLE))), scale=scale)

    def chance(self, values: np.ndarray) -> np.ndarray:
        """(N,) probability of a value as large."""
        return scipy.stats.gumbel_r.sf(values, self.place, self.scale)

    def log_density(self, values: np.ndarray) -> np.ndarray:
        """(N,) logarithm of the density."""
        return scipy.stats.gumbel_r.logpdf(values, self.place, self.scale)


def discoveries(chances: np.ndarray, false_share: float) -> np.ndarray:
    """(N,) bool: the findings of which at most ``false_share`` are expected to be due to chance.

    If all of N values are due to chance, there is a finding in a share ``false_share`` of such sets, however large N.

    Args:
        chances: (N,) probability of a value as extreme.

    Source: Benjamini & Hochberg, Controlling the false discovery rate, 1995.
    """
    order = np.argsort(chances, kind="stable")
    passed = np.flatnonzero(chances[order] <= false_share * np.arange(1, len(order) + 1) / max(len(order), 1))
    found = np.zeros(len(chances), bool)
    found[order[: passed[-1] + 1 if len(passed) else 0]] = True
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelMixture:
    """Model of images whose labels are right or wrong, given two standard scores of each.

    ``own`` compares an image with the other images of its identity, ``other`` with the most similar other identity.
    Both count standard deviations above the mean of the image's similarities with other identities.

    - wrong label: ``own`` is that of a stranger, normal with mean 0 and deviation 1. For ``KNOWN_SHARE`` of them
      the true person is another identity, and ``other`` is what ``own`` is for right labels.
    - right label: ``own`` is normal, ``other`` the largest of many strangers.

    Attributes:
        share: of wrong labels.
        mean: of ``own`` for right labels.
        spread: its standard deviation.
        strangers: distribution of ``other`` for right labels.
    """

    share: float
    mean: float
    spread: float
    strangers: Extremes

    def wrong(self, own: np.ndarray, other: np.ndarray) -> np.ndarray:
        """(N,) probability that a label is wrong; never rises with ``own``."""
        right = scipy.stats.norm.logpdf(np.maximum(own, self._peak), self.mean, self.spread)
        wrong = scipy.stats.norm.logpdf(np.maximum(own, self._peak))
        known = scipy.stats.norm.logpdf(np.minimum(other, self.mean), self.mean, self.spread)
        known -= self.strangers.log_density(np.minimum(other, self.mean))
        wrong = wrong + np.logaddexp(np.log(1 - KNOWN_SHARE), np.log(KNOWN_SHARE) + known)
        prior = np.log(max(self.share, MIN_SHARE)) - np.log(max(1 - self.share, MIN_SHARE))
        return scipy.special.expit(prior + wrong - right)

    @property
    def _peak(self) -> float:
        """The ``own`` at which a wrong label is likeliest: below it the wider of two normals would win again."""
        excess = self.spread**2 - 1
        return -self.mean / excess if excess > 0 else -np.inf


def fit_labels(own: np.ndarray, other: np.ndarray) -> LabelMixture:
    """Fits the mixture to two scores of each image by expectation-maximisation."""
    mean, spread = robust_normal(own)
    found = LabelMixture(share=FIRST_SHARE, mean=mean, spread=spread, strangers=Extremes.fit(other))
    for _ in range(ROUNDS):
        wrong = found.wrong(own, other)
        right = np.maximum(1 - wrong, MIN_SHARE)
        mean = float(np.average(own, weights=right))
        spread = max(float(np.sqrt(np.average((own - mean) ** 2, weights=right))), MIN_SCALE)
        share = min(float(wrong.mean()), _most_wrong(own, mean, spread))
        settled = abs(share - found.share) < TOLERANCE
        found = dataclasses.replace(found, share=share, mean=mean, spread=spread)
        if settled:
            break
    return found


def _most_wrong(own: np.ndarray, mean: float, spread: float) -> float:
    """The largest share of wrong labels that agrees with the number of low scores, where right labels have hardly any.

    Without it, a long tail of hard but right images would pass for wrong labels.
    """
    limit = max(mean - TAIL_SPREADS * spread, 0.0)
    return min(float((own < limit).mean() / scipy.stats.norm.cdf(limit)), 1.0)
