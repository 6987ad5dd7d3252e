"""Likelihood ratios against scikit-learn, closed forms and naive loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from benchmarks.search.likelihood import (
    FOLDS,
    Line,
    cllr,
    costs_in_bits,
    fit,
    fit_line,
    held_out,
    mean_cost,
    min_cllr,
)

LN10 = math.log(10)


def gaussian_scores(genuine, impostors, seed=0):
    """Scores of two normal distributions of one width: log LR is a line."""
    rng = np.random.default_rng(seed)
    scores = np.concatenate([rng.normal(0.4, 0.1, genuine), rng.normal(0.1, 0.1, impostors)])
    return scores, np.arange(len(scores)) < genuine


def people_scores(people, images, seed=0, effect=0.05):
    """All pairs of images; the images of some people are easy, those of others hard."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(people), images)
    first, second = np.triu_indices(len(who), 1)
    ease = rng.normal(0, effect, people)
    genuine = who[first] == who[second]
    scores = np.where(genuine, 0.4, 0.1) + rng.normal(0, 0.1, len(first)) + ease[who[first]] + ease[who[second]]
    return scores, genuine, np.stack([who[first], who[second]], axis=1)


def sklearn_line(scores, genuine, weights):
    """Slope and intercept of log10 LR: every pair twice, as a hit and as a miss, with the shares of Platt's targets."""
    hits, misses = weights[genuine].sum(), weights[~genuine].sum()
    targets = np.where(genuine, (hits + 1) / (hits + 2), 1 / (misses + 2))
    balanced = weights / np.where(genuine, hits, misses)
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000)
    model.fit(
        np.concatenate([scores, scores])[:, None],
        np.repeat([1, 0], len(scores)),
        sample_weight=np.concatenate([balanced * targets, balanced * (1 - targets)]),
    )
    return model.coef_[0, 0] / LN10, model.intercept_[0] / LN10


@pytest.mark.parametrize("weighted", [False, True])
def test_the_line_is_scikit_learns(weighted):
    scores, genuine = gaussian_scores(150, 400)
    weights = np.random.default_rng(1).integers(1, 4, len(scores)) if weighted else np.ones(len(scores))
    line = fit_line(scores, genuine, weights if weighted else None)
    np.testing.assert_allclose((line.slope, line.intercept), sklearn_line(scores, genuine, weights), rtol=1e-4)
    np.testing.assert_allclose(
        line.bounds, (-np.log10(weights[genuine].sum() + 1), np.log10(weights[~genuine].sum() + 1))
    )


def test_the_line_finds_the_true_ratio_whatever_the_share_of_genuine_pairs():
    for genuine, impostors in ((40_000, 40_000), (4_000, 160_000)):
        line = fit_line(*gaussian_scores(genuine, impostors))
        assert line.slope * LN10 == pytest.approx(0.3 / 0.1**2, rel=0.05)
        assert -line.intercept / line.slope == pytest.approx(0.25, abs=0.005)  # LR 1 in the middle


def test_scores_that_do_not_overlap_have_finite_bounded_ratios():
    scores = np.concatenate([np.linspace(0.6, 0.8, 60), np.linspace(0.0, 0.2, 300)])
    line = fit_line(scores, np.arange(360) < 60)
    assert 1 < line.slope < 1000
    assert line.log10(np.array([-1.0, 0.0, 0.4, 0.8, 1.0])) == pytest.approx(
        [-np.log10(61), -np.log10(61), line.intercept + 0.4 * line.slope, np.log10(301), np.log10(301)]
    )


def test_beyond_the_scores_of_the_calibration_the_ratio_stays():
    line = Line(slope=10, intercept=-3, scores=(0.1, 0.5), bounds=(-9, 9))
    np.testing.assert_allclose(line.log10(np.array([-1, 0.1, 0.3, 0.5, 1])), [-2, -2, 0, 2, 2], atol=1e-12)


def test_cllr_by_hand():
    log10 = np.array([2.0, -1.0, 0.5, -3.0, 0.0])
    genuine = np.array([True, True, False, False, False])
    hits = [math.log2(1 + 10**-value) for value in (2.0, -1.0)]
    misses = [math.log2(1 + 10**value) for value in (0.5, -3.0, 0.0)]
    assert cllr(log10, genuine) == pytest.approx((sum(hits) / 2 + sum(misses) / 3) / 2)
    weights = np.array([1, 3, 0, 2, 2])
    expected = ((hits[0] + 3 * hits[1]) / 4 + (2 * misses[1] + 2 * misses[2]) / 4) / 2
    assert mean_cost(costs_in_bits(log10, genuine), genuine, weights) == pytest.approx(expected)
    assert cllr(np.zeros(5), genuine) == 1
    assert cllr(np.where(genuine, 400.0, -400.0), genuine) == 0


def test_min_cllr_is_scikit_learns_isotonic_regression():
    scores, genuine = gaussian_scores(80, 200)
    scores = scores.round(2)  # ties
    weights = np.where(genuine, 1 / 80, 1 / 200)
    share = IsotonicRegression().fit(scores, genuine, sample_weight=weights).predict(scores)
    with np.errstate(divide="ignore"):
        log10 = np.log10(share / (1 - share))
    assert 0 < min_cllr(scores, genuine) == pytest.approx(cllr(log10, genuine), abs=1e-9)
    assert min_cllr(scores, genuine) < cllr(fit_line(scores, genuine).log10(scores), genuine)
    assert min_cllr(np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, False, True, True])) == 0
    assert min_cllr(np.array([0.5] * 4), np.array([False, False, True, True])) == pytest.approx(1)


def test_held_out_ratios_know_nothing_of_the_people(monkeypatch):
    scores, genuine, identities = people_scores(25, 3)
    trained = []

    def spy(some, kind, weights=None):
        trained.append(np.flatnonzero(np.isin(scores, some)))
        return fit_line(some, kind, weights)

    monkeypatch.setattr("benchmarks.search.likelihood.fit_line", spy)
    found = held_out(scores, genuine, identities)
    assert len(trained) == FOLDS
    used = [set(identities[rows].ravel()) for rows in trained]
    assert all(15 <= len(people) < 25 for people in used)
    lines = [fit_line(scores[rows], genuine[rows]).log10(scores) for rows in trained]
    for pair, value in enumerate(found):
        unseen = [line[pair] for line, people in zip(lines, used, strict=True) if identities[pair, 0] not in people]
        assert value in unseen


def test_where_all_impostors_show_one_person_nothing_is_known_of_that_person():
    scores, genuine = gaussian_scores(60, 200)
    identities = np.stack([np.arange(260) % 30] * 2, axis=1)
    identities[~genuine] = [0, 1]
    found = held_out(scores, genuine, identities)
    assert (found[~genuine] == 0).all()
    assert (found[genuine] != 0).sum() > 40


@pytest.mark.usefixtures("all_resamples")
def test_the_interval_is_that_of_a_bootstrap_over_people():
    scores, genuine, identities = people_scores(30, 3)
    found = fit(scores, genuine, identities)
    rng, lines, people = np.random.default_rng(5), [], 30
    for _ in range(300):  # naive: the drawn people, one by one
        drawn = np.bincount(rng.integers(0, people, people), minlength=people)
        first, second = identities.T
        weights = np.where(first == second, drawn[first], drawn[first] * drawn[second])
        line = fit_line(scores[weights > 0], genuine[weights > 0], weights[weights > 0])
        lines.append(line.intercept + line.slope * np.array([0.2, 0.3]))
    ratios = found.ratios(np.array([0.2, 0.3]))
    np.testing.assert_allclose(np.quantile(lines, 0.025, axis=0), ratios.low, atol=0.08)
    np.testing.assert_allclose(np.quantile(lines, 0.975, axis=0), ratios.high, atol=0.08)
    assert (ratios.low < ratios.log10).all()
    assert (ratios.log10 < ratios.high).all()
    assert found.cllr_interval[0] < found.cllr < found.cllr_interval[1]
    assert found.min_cllr < found.cllr


def test_equal_scores_are_no_evidence():
    line = fit_line(np.full(300, 0.5), np.arange(300) < 50)
    assert line.log10(np.array([0.5])) == pytest.approx(0, abs=0.02)  # Platt's targets: a little below


@pytest.mark.usefixtures("all_resamples")
def test_more_people_give_narrower_intervals():
    widths = []
    for people in (25, 100):
        ratios = fit(*people_scores(people, 2)).ratios(np.array([0.35]))
        widths.append((ratios.high - ratios.low)[0])
    assert widths[1] < 0.7 * widths[0]


def test_ratios_say_where_they_are_bounded():
    found = fit(*people_scores(25, 3))
    low, high = found.line.scores
    ratios = found.ratios(np.array([low - 0.1, 0.25, high + 0.1]))
    assert ratios.bounded.tolist() == [True, False, True]
    inside = found.ratios(np.array([low, 0.25, high]))
    np.testing.assert_array_equal(ratios.log10, inside.log10)
    np.testing.assert_array_equal(ratios.low, inside.low)
    assert (found.misleading[0] > 0, found.misleading[1] > 0) == (True, True)
