"""The exact ranking against a naive one, with any block size; ties by row."""

from __future__ import annotations

import numpy as np
import pytest

import benchmarks.search.exact
from benchmarks.search.exact import TopMatches, pair_scores, rounding_error
from tests.benchmarks.search.vectors import naive, units

NOBODY = np.empty(0, np.int64)


def blockwise(probes, gallery, top, size, barred=()):
    found = TopMatches(probes, top)
    for start in range(0, len(gallery), size):
        end = min(start + size, len(gallery))
        inside = [(probe, row - start) for probe, row in barred if start <= row < end]
        found.add(gallery[start:end], np.arange(start, end), *np.array(inside, np.int64).reshape(-1, 2).T)
    return found


@pytest.mark.parametrize("size", [1, 7, 100, 700])
@pytest.mark.parametrize("tile", [1, 5, 1024])
def test_equals_the_naive_ranking(monkeypatch, size, tile):
    monkeypatch.setattr(benchmarks.search.exact, "PROBE_ROWS", tile)
    monkeypatch.setattr(benchmarks.search.exact, "RESCORED_PAIRS", 11)
    monkeypatch.setattr(benchmarks.search.exact, "CROWD", 1)
    gallery, probes = units(300, 16), units(12, 16, seed=5)
    gallery[100:140] = gallery[7]  # one face many times
    probes[3], probes[4] = gallery[7], -gallery[7]
    barred = [(3, 7), (3, 120), (5, 0), (0, 299)]
    found = blockwise(probes, gallery, 9, size, barred)
    scores, rows = naive(probes, gallery, 9, set(barred))
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_array_equal(found.scores, scores)
    assert rows[3].tolist() == list(range(100, 109))


def test_nearly_equal_scores_are_ranked_by_the_true_products():
    """float32 products of such faces come in any order; in float64 each next face is a little less similar."""
    base, other = np.eye(512)[0], np.ones(512) / np.sqrt(512)
    angles = 0.3 + 1e-4 * np.arange(200)
    other -= (other @ base) * base
    other /= np.linalg.norm(other)
    gallery = (np.cos(angles)[:, None] * base + np.sin(angles)[:, None] * other).astype(np.float32)
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.standard_normal((512, 512)))[0]
    gallery = (gallery @ rotation).astype(np.float32)[rng.permutation(200)]
    probe = (base @ rotation).astype(np.float32)[None]
    for size in (3, 64, 200):
        found = blockwise(probe, gallery, 50, size)
        np.testing.assert_array_equal(found.rows, naive(probe, gallery, 50)[1])


def test_fewer_matches_than_wanted_leave_places_empty():
    found = blockwise(units(2, 4), units(3, 4, seed=1), 5, 2, [(0, 1)])
    assert (found.rows >= 0).sum(1).tolist() == [2, 3]
    assert np.isneginf(found.scores[found.rows < 0]).all()


def test_the_bound_holds_for_products_in_float32():
    for length in (4, 64, 512):
        first, second = np.abs(units(2000, length)), np.abs(units(2000, length, seed=9))
        error = np.abs((first * second).cumsum(1)[:, -1] - pair_scores(first, second)).max()
        assert 0 < error <= rounding_error(length) < 1e-3
