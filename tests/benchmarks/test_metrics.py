"""Metrics: the reference's figures, naive oracles, scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc

from benchmarks.metrics import bootstrap_intervals, fold_accuracies, roc_curve


def test_qmul_figures_equal_the_reference(golden):
    figures = golden("metrics")
    roc = roc_curve(figures["qmul_scores"], figures["qmul_labels"].astype(bool))
    tars = [roc.tar_at(far) for far in (0.3, 0.1, 0.01, 0.001)]
    np.testing.assert_allclose(tars, figures["qmul_tpr"], atol=1e-3)
    assert roc.auc == pytest.approx(float(figures["qmul_auc"]), abs=1e-6)


def test_fold_accuracies_equal_the_reference(golden):
    figures = golden("metrics")
    folds = np.arange(6000) // 600
    accuracies = fold_accuracies(figures["lfw_scores"], figures["lfw_labels"].astype(bool), folds)
    assert np.array_equal(accuracies, figures["lfw_fold_accuracy"])
    assert accuracies.std() == pytest.approx(float(figures["lfw_std"]), abs=1e-12)


def case(seed, ties):
    rng = np.random.default_rng(seed)
    genuine = np.append(rng.random(60) < 0.4, [True, False])
    scores = np.clip(rng.normal(0.3 * genuine, 0.3), -1, 1)
    return (np.round(scores, 1) if ties else scores), genuine


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_roc_equals_scikit_learn(seed, ties):
    scores, genuine = case(seed, ties)
    roc = roc_curve(scores, genuine)
    far, tar, _ = sklearn_roc(genuine, scores, drop_intermediate=False)
    np.testing.assert_allclose(roc.far, far)
    np.testing.assert_allclose(roc.tar, tar)
    assert roc.auc == pytest.approx(roc_auc_score(genuine, scores))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.booleans(), st.floats(0.0, 1.0))
def test_tar_at_far_equals_a_walk_along_the_curve(seed, ties, wanted):
    scores, genuine = case(seed, ties)
    roc = roc_curve(scores, genuine)
    expected = None
    for (x0, y0), (x1, y1) in zip(
        zip(roc.far, roc.tar, strict=True), zip(roc.far[1:], roc.tar[1:], strict=True), strict=False
    ):
        if x0 <= wanted < x1:
            expected = y0 + (wanted - x0) / (x1 - x0) * (y1 - y0)
    if expected is not None:
        assert roc.tar_at(wanted) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_integer_weights_are_repeated_pairs(seed):
    scores, genuine = case(seed, True)
    weights = np.random.default_rng(seed).integers(0, 3, len(scores))
    weights[[-1, -2]] = 1
    weighted = roc_curve(scores, genuine, weights)
    repeated = roc_curve(np.repeat(scores, weights), np.repeat(genuine, weights))
    assert weighted.auc == pytest.approx(repeated.auc)
    for far in (0.05, 0.2, 0.5):
        assert weighted.tar_at(far) == pytest.approx(repeated.tar_at(far))


def naive_fold_accuracies(scores, genuine, folds):
    out = []
    for fold in range(folds.max() + 1):
        best, threshold = -1.0, None
        for candidate in np.linspace(-1, 1, 10001):
            right = ((scores[folds != fold] >= candidate) == genuine[folds != fold]).mean()
            if right >= best:
                best, threshold = right, candidate
        out.append(((scores[folds == fold] >= threshold) == genuine[folds == fold]).mean())
    return out


def test_fold_accuracies_equal_a_naive_search():
    scores, genuine = case(3, False)
    folds = np.arange(len(scores)) % 4
    np.testing.assert_allclose(fold_accuracies(scores, genuine, folds), naive_fold_accuracies(scores, genuine, folds))


def test_perfect_and_reversed_scores():
    genuine = np.array([True] * 5 + [False] * 5)
    scores = np.linspace(0.9, -0.9, 10)
    assert roc_curve(scores, genuine).auc == 1.0
    assert roc_curve(scores, genuine).tar_at(0.001) == 1.0
    assert roc_curve(-scores, genuine).auc == 0.0


def test_bootstrap_covers_and_repeats():
    rng = np.random.default_rng(0)
    identities = rng.integers(0, 40, (400, 2))
    genuine = identities[:, 0] == identities[:, 1]
    genuine[:50] = True
    identities[:50, 1] = identities[:50, 0]
    scores = np.clip(rng.normal(0.3 * genuine, 0.3), -1, 1)

    def auc(weights):
        return {"auc": roc_curve(scores, genuine, weights).auc}

    low, high = bootstrap_intervals(auc, identities, rounds=200)["auc"]
    assert (low, high) == bootstrap_intervals(auc, identities, rounds=200)["auc"]
    assert low < roc_curve(scores, genuine).auc < high
    wide = bootstrap_intervals(auc, identities, rounds=200, level=0.99)["auc"]
    assert wide[0] < low
    assert high < wide[1]


def test_bootstrap_weights_follow_the_people():
    """A pair is as often in a round as its people are drawn: never without one of them."""
    identities = np.array([[0, 0], [0, 1], [2, 2]])
    seen = []
    bootstrap_intervals(lambda weights: (seen.append(weights), {"x": 0.0})[1], identities, rounds=50)
    assert len(seen) == 50
    for genuine, impostor, _ in seen:
        assert impostor == 0 or genuine > 0
    assert np.mean([weights[2] for weights in seen]) == pytest.approx(1.0, abs=0.35)
