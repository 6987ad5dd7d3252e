"""Thresholds follow the distribution: faults are found, and a set without any has none, however large it is."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.audit.thresholds import Extremes, discoveries, fit_labels


def scores(rng, images, wrong, separation=6.0, spread=1.5):
    """Standard scores of images: with their own identity and with the most similar other one; which are wrong."""
    is_wrong = np.arange(images) < round(wrong * images)
    own = np.where(is_wrong, rng.normal(0, 1, images), rng.normal(separation, spread, images))
    other = rng.gumbel(3, 0.3, images)
    known = is_wrong & (np.arange(images) % 2 == 0)
    other[known] = np.maximum(other[known], rng.normal(separation, spread, known.sum()))
    return own, other, is_wrong


@pytest.mark.parametrize("images", [300, 30_000])
def test_a_clean_set_has_no_wrong_labels(images):
    own, other, _ = scores(np.random.default_rng(0), images, wrong=0)
    model = fit_labels(own, other)
    assert model.share < 0.01
    assert (model.wrong(own, other) >= 0.5).mean() < 0.01


@pytest.mark.parametrize("wrong", [0.003, 0.03, 0.2])
def test_wrong_labels_are_found_and_counted(wrong):
    own, other, is_wrong = scores(np.random.default_rng(1), 20_000, wrong)
    model = fit_labels(own, other)
    assert model.share == pytest.approx(wrong, rel=0.25)
    assert (model.mean, model.spread) == (pytest.approx(6, abs=0.1), pytest.approx(1.5, abs=0.1))
    found = model.wrong(own, other) >= 0.5
    assert (found & is_wrong).sum() > 0.85 * is_wrong.sum()
    assert (found & is_wrong).sum() > 0.8 * found.sum()


def test_the_probability_is_not_overstated():
    own, other, is_wrong = scores(np.random.default_rng(2), 30_000, 0.05, separation=4)
    probability = fit_labels(own, other).wrong(own, other)
    for low, high in ((0.1, 0.5), (0.5, 0.9), (0.9, 1.0)):
        chosen = (probability >= low) & (probability <= high)
        assert chosen.sum() > 30
        assert is_wrong[chosen].mean() > probability[chosen].mean() - 0.05


def test_an_image_far_from_its_identity_is_never_surer_than_one_farther_away():
    own, other, _ = scores(np.random.default_rng(3), 2000, 0.05)
    model = fit_labels(own, other)
    line = np.linspace(-30, 12, 500)
    assert (np.diff(model.wrong(line, np.full(500, 3.0))) <= 1e-12).all()


@pytest.mark.parametrize("outliers", [0.0, 0.3])
def test_extremes_ignore_outliers_on_top(outliers):
    rng = np.random.default_rng(4)
    values = rng.gumbel(0.3, 0.03, 20_000)
    values[: round(outliers * len(values))] = 0.9
    found = Extremes.fit(values)
    assert found.place == pytest.approx(0.3, abs=0.03)
    assert found.scale == pytest.approx(0.03, rel=0.5 if outliers else 0.05)
    assert found.chance(np.array([0.3, 0.9]))[1] < 1e-4


def test_chance_alone_makes_a_finding_in_few_sets():
    rng = np.random.default_rng(5)
    with_findings = [discoveries(rng.random(1000), 0.05).any() for _ in range(400)]
    assert np.mean(with_findings) < 0.09


def test_discoveries_are_those_of_the_definition():
    rng = np.random.default_rng(6)
    chances = np.concatenate([rng.random(50), rng.random(20) * 1e-3])
    ranked = np.sort(chances)
    largest = max(rank for rank in range(1, 71) if ranked[rank - 1] <= 0.05 * rank / 70)
    found = discoveries(chances, 0.05)
    assert found.sum() == largest
    assert set(chances[found]) == set(ranked[:largest])
    assert not discoveries(np.empty(0), 0.05).any()
