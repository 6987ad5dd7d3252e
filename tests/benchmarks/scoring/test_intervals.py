"""Intervals: closed forms against SciPy, properties of the bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, chi2

from benchmarks.scoring.intervals import deviation_interval, percentiles, resamples, wilson
from benchmarks.scoring.metrics import RocSamples

pytestmark = pytest.mark.usefixtures("all_resamples")


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (3, 650), (320, 400), (5999, 6000)])
def test_wilson_equals_scipy(successes, trials):
    expected = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("count", [2, 3, 10, 25])
def test_the_interval_of_a_standard_deviation_equals_scipy(count):
    low, high = np.sqrt(count / chi2.ppf([0.975, 0.025], count - 1))
    assert deviation_interval(3.0, count) == pytest.approx((3.0 * low, 3.0 * high), rel=1e-12)


def test_the_interval_of_a_standard_deviation_covers_95_percent():
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 2.0, (2000, 10))
    covered = [low <= 2.0 <= high for low, high in (deviation_interval(row.std(), 10) for row in samples)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


def bounds(statistic, identities, **options):
    return {name: percentiles(values) for name, values in resamples(statistic, identities, **options).items()}


def test_bootstrap_contains_the_value_and_is_deterministic():
    rng = np.random.default_rng(0)
    identities = rng.integers(0, 40, (400, 2))
    identities[:50, 1] = identities[:50, 0]
    genuine = identities[:, 0] == identities[:, 1]
    samples = RocSamples(np.clip(rng.normal(0.3 * genuine, 0.3), -1, 1), genuine)

    def auc(weights):
        return {"auc": samples.curve(weights).auc, "pair": np.array([1.0, samples.curve(weights).auc])}

    found = bounds(auc, identities, rounds=200)
    low, high = found["auc"]
    assert found["auc"].tolist() == bounds(auc, identities, rounds=200)["auc"].tolist()
    assert found["auc"].tolist() != bounds(auc, identities, rounds=200, seed=1)["auc"].tolist()
    assert low < samples.curve().auc < high
    assert found["pair"].tolist() == [[1.0, low], [1.0, high]]


def test_intervals_of_few_people_are_wider_than_those_of_many():
    """Forty pairs of one person are not forty observations."""
    rng = np.random.default_rng(0)
    right = rng.random(800) < 0.5
    right[:] = np.repeat(rng.random(20) < 0.5, 40)

    def share(weights):
        return {"share": float(np.average(right, weights=weights))} if weights.sum() else {}

    few, many = np.repeat(np.arange(20), 40), np.arange(800)
    widths = [np.ptp(bounds(share, np.stack([people, people], 1))["share"]) for people in (few, many)]
    assert widths[0] > 3 * widths[1]


def test_bootstrap_weights_follow_the_identities():
    """A pair of two people has weight 0 unless both are drawn."""
    identities = np.array([[0, 0], [0, 1], [2, 2]])
    seen = []
    resamples(lambda weights: (seen.append(weights), {"x": 0.0})[1], identities, rounds=50)
    assert len(seen) == 50
    for genuine, impostor, _ in seen:
        assert impostor == 0 or genuine > 0
    assert np.mean([weights[2] for weights in seen]) == pytest.approx(1.0, abs=0.35)


def test_rounds_with_an_undefined_statistic_are_skipped():
    calls = iter(range(100))
    found = bounds(lambda _: {} if next(calls) % 2 else {"x": 1.0}, np.array([[0, 0], [1, 1]]), rounds=10)
    assert found["x"].tolist() == [1.0, 1.0]
