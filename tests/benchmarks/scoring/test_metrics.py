"""Metrics against the reference, naive oracles and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, top_k_accuracy_score
from sklearn.metrics import roc_curve as sklearn_roc

from benchmarks.scoring import metrics
from benchmarks.scoring.metrics import RocSamples, average_precision, fold_decisions, rank_gallery
from benchmarks.scoring.vectors import identity_templates, rows_of, unit_length
from tests.benchmarks.oracles import naive_ranking


def roc_curve(scores, genuine, weights=None):
    return RocSamples(scores, genuine).curve(weights)


def accuracies(scores, genuine, folds):
    right = fold_decisions(scores, genuine, folds)
    return np.array([right[folds == fold].mean() for fold in range(folds.max() + 1)])


def test_qmul_metrics_equal_the_reference(golden):
    expected = golden("metrics")
    roc = roc_curve(expected["qmul_scores"], expected["qmul_labels"].astype(bool))
    tars = roc.tar_at(np.array([0.3, 0.1, 0.01, 0.001]))
    np.testing.assert_allclose(tars, expected["qmul_tpr"], atol=1e-3)
    assert roc.auc == pytest.approx(float(expected["qmul_auc"]), abs=1e-6)


def test_fold_accuracies_equal_the_reference(golden):
    expected = golden("metrics")
    found = accuracies(expected["lfw_scores"], expected["lfw_labels"].astype(bool), np.arange(6000) // 600)
    assert np.array_equal(found, expected["lfw_fold_accuracy"])
    assert found.std() == pytest.approx(float(expected["lfw_std"]), abs=1e-12)


def case(seed, ties):
    rng = np.random.default_rng(seed)
    genuine = np.append(rng.random(60) < 0.4, [True, False])
    scores = np.clip(rng.normal(0.3 * genuine, 0.3), -1, 1)
    return (np.round(scores, 1) if ties else scores), genuine


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.booleans())
def test_roc_equals_scikit_learn(seed, ties):
    scores, genuine = case(seed, ties)
    roc = roc_curve(scores, genuine)
    far, tar, _ = sklearn_roc(genuine, scores, drop_intermediate=False)
    np.testing.assert_allclose(roc.far, far)
    np.testing.assert_allclose(roc.tar, tar)
    assert roc.auc == pytest.approx(roc_auc_score(genuine, scores))


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.booleans(), st.floats(0.0, 1.0))
def test_tar_at_far_equals_a_walk_along_the_curve(seed, ties, wanted):
    scores, genuine = case(seed, ties)
    roc = roc_curve(scores, genuine)
    expected = roc.tar[-1]
    points = list(zip(roc.far, roc.tar, strict=True))
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        if x0 <= wanted < x1:
            expected = y0 + (wanted - x0) / (x1 - x0) * (y1 - y0)
    assert float(roc.tar_at(wanted)) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_integer_weights_are_repeated_pairs(seed):
    scores, genuine = case(seed, True)
    weights = np.random.default_rng(seed).integers(0, 3, len(scores))
    weights[[-1, -2]] = 1
    weighted = roc_curve(scores, genuine, weights)
    repeated = roc_curve(np.repeat(scores, weights), np.repeat(genuine, weights))
    assert weighted.auc == pytest.approx(repeated.auc)
    rates = np.array([0.05, 0.2, 0.5])
    np.testing.assert_allclose(weighted.tar_at(rates), repeated.tar_at(rates))


def test_a_draw_without_genuine_or_without_impostor_pairs_has_no_curve():
    scores, genuine = case(1, False)
    assert roc_curve(scores, genuine, genuine.astype(float)) is None
    assert roc_curve(scores, genuine, (~genuine).astype(float)) is None


def test_missed_samples_are_never_accepted():
    scores, genuine = np.array([0.9, 0.5, -2.0, 0.7, 0.1]), np.array([True, True, True, False, False])
    roc = RocSamples(scores, genuine, scores == -2).curve()
    assert roc.tar.max() == pytest.approx(2 / 3)
    assert roc.auc == pytest.approx((1 + 0.5 + 0) / 3)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("ties", [False, True])
def test_the_equal_error_rate_is_where_scikit_learn_s_curves_cross(seed, ties):
    scores, genuine = case(seed, ties)
    roc = roc_curve(scores, genuine)
    far, tar, _ = sklearn_roc(genuine, scores, drop_intermediate=False)
    assert far[0] == tar[0] == 0.0
    shares = np.linspace(0, 1, 200_001)  # along every segment of the curve
    position = np.interp(shares, np.linspace(0, 1, len(far)), far), np.interp(shares, np.linspace(0, 1, len(far)), tar)
    nearest = np.abs(position[0] - (1 - position[1])).argmin()
    assert roc.eer == pytest.approx(position[0][nearest], abs=1e-4)
    accepted = scores >= roc.eer_threshold
    assert accepted[~genuine].mean() >= 1 - accepted[genuine].mean() - 1e-12
    above = scores > roc.eer_threshold
    assert above[~genuine].mean() < 1 - above[genuine].mean()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("ties", [False, True])
def test_a_threshold_keeps_the_rate_and_the_next_lower_score_does_not(seed, ties):
    scores, genuine = case(seed, ties)
    roc, rates = roc_curve(scores, genuine), np.array([0.02, 0.1, 0.3, 0.99])
    thresholds = roc.threshold_at(rates)
    assert len(set(thresholds.tolist())) > 1
    for rate, threshold in zip(rates, thresholds, strict=True):
        assert (scores[~genuine] >= threshold).mean() <= rate
        lower = scores[scores < threshold].max()
        assert (scores[~genuine] >= lower).mean() > rate


def test_a_rate_below_the_highest_scores_of_impostors_needs_a_threshold_above_all():
    scores, genuine = np.array([0.5, 0.9, 0.9]), np.array([True, False, False])
    threshold = roc_curve(scores, genuine).threshold_at(0.4)
    assert threshold == np.nextafter(0.9, 1)


def test_perfect_scores_have_no_equal_error():
    scores, genuine = np.array([0.9, 0.8, 0.3, 0.1]), np.array([True, True, False, False])
    roc = roc_curve(scores, genuine)
    assert (roc.eer, roc.eer_threshold) == (0.0, 0.8)
    assert roc_curve(-scores, genuine).eer == 1.0


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
    np.testing.assert_allclose(accuracies(scores, genuine, folds), naive_fold_accuracies(scores, genuine, folds))


def test_perfect_and_reversed_scores():
    genuine = np.array([True] * 5 + [False] * 5)
    scores = np.linspace(0.9, -0.9, 10)
    assert roc_curve(scores, genuine).auc == 1.0
    assert roc_curve(scores, genuine).tar_at(0.001) == 1.0
    assert roc_curve(-scores, genuine).auc == 0.0


def gallery_case(seed, probes=23, gallery=40, people=9, ties=False):
    """Unit vectors; some gallery images have no identity (-1), some probes have no mate."""
    rng = np.random.default_rng(seed)
    vectors = unit_length(rng.normal(size=(probes + gallery, 6)))
    if ties:
        vectors = np.eye(4)[rng.integers(0, 4, probes + gallery)]
    ids = rng.integers(0, people, probes + gallery)
    ids[probes:][rng.random(gallery) < 0.3] = -1
    return vectors[:probes].astype(np.float32), ids[:probes], vectors[probes:].astype(np.float32), ids[probes:]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("ties", [False, True])
def test_ranking_equals_a_walk_down_the_list(seed, ties, monkeypatch):
    monkeypatch.setattr(metrics, "BLOCK_BYTES", 8 * 40 * 5)  # five probes a block
    probes, probe_ids, gallery, gallery_ids = gallery_case(seed, ties=ties)
    found = rank_gallery(probes, probe_ids, gallery, gallery_ids)
    expected = [
        naive_ranking(probe, identity, gallery, gallery_ids) for probe, identity in zip(probes, probe_ids, strict=True)
    ]
    assert found.rank.tolist() == [rank for rank, _ in expected]
    np.testing.assert_allclose(found.precision, [area for _, area in expected], atol=1e-12)
    scores = probes @ gallery.T
    for row in range(len(probes)):
        is_mate = gallery_ids == probe_ids[row]
        if is_mate.any():
            assert found.mate_score[row] == pytest.approx(scores[row, is_mate].max(), abs=1e-6)
            assert gallery_ids[found.mate[row]] == probe_ids[row]
        assert found.impostor_score[row] == pytest.approx(scores[row, ~is_mate].max(), abs=1e-6)
        assert gallery_ids[found.impostor[row]] != probe_ids[row]


def test_a_probe_without_identity_has_no_mate_among_images_without_identity():
    gallery = np.eye(3, dtype=np.float32)
    found = rank_gallery(gallery[:1], np.array([-1]), gallery, np.array([-1, 5, 6]))
    assert (found.rank[0], found.precision[0], found.impostor_score[0]) == (0, 0.0, 1.0)


def test_ranks_equal_scikit_learn_top_k():
    rng = np.random.default_rng(0)
    gallery, probes = unit_length(rng.normal(size=(15, 4))), unit_length(rng.normal(size=(200, 4)))
    ids = rng.integers(0, 15, 200)
    ranks = rank_gallery(probes, ids, gallery, np.arange(15)).rank
    for k in (1, 5, 10):
        expected = top_k_accuracy_score(ids, probes @ gallery.T, k=k, labels=np.arange(15))
        assert (ranks <= k).mean() == pytest.approx(expected)


def test_a_collapsed_network_ranks_every_mate_last():
    same = np.ones((20, 3), np.float32) / np.sqrt(3, dtype=np.float32)
    assert (rank_gallery(same, np.arange(20), same, np.arange(20)).rank == 20).all()


def test_average_precision_of_a_hand_computed_list():
    """Hits at ranks 1 and 4 of five: (1 + 1) / 2 / 2 + (1/3 + 2/4) / 2 / 2."""
    assert average_precision(np.array([0.9, 0.2]), np.array([0.8, 0.7, 0.1])) == pytest.approx(0.5 + (1 / 3 + 0.5) / 4)
    assert average_precision(np.array([]), np.array([0.5])) == 0.0


@pytest.mark.parametrize("chunk", [1, 3, 1024])
def test_templates_do_not_depend_on_the_chunk_size(monkeypatch, chunk):
    monkeypatch.setattr("benchmarks.scoring.vectors.CHUNK_IDENTITIES", chunk)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 9)).astype(np.float32)
    rows, ids = rng.permutation(50)[:40], rng.integers(7, size=40)
    found = identity_templates(vectors, rows, ids)
    monkeypatch.setattr("benchmarks.scoring.vectors.CHUNK_IDENTITIES", 7)
    assert np.array_equal(found, identity_templates(vectors, rows, ids))
    means = [vectors[rows[ids == identity]].mean(0) for identity in range(7)]
    np.testing.assert_allclose(found, unit_length(np.array(means)), atol=1e-6)


def test_consecutive_rows_are_not_copied():
    vectors = np.arange(20.0).reshape(10, 2)
    for rows, shared in (([3, 4, 5], True), ([7], True), ([3, 5], False), ([5, 4], False), ([], False)):
        found = rows_of(vectors, np.array(rows, int))
        assert np.array_equal(found, vectors[rows])
        assert np.shares_memory(found, vectors) == shared


def test_templates_equal_a_loop():
    rng = np.random.default_rng(0)
    vectors, ids = rng.normal(size=(30, 4)).astype(np.float32), rng.integers(3, 9, 30) * 100
    means = [vectors[ids == identity].mean(0) for identity in sorted(set(ids.tolist()))]
    expected = [mean / np.linalg.norm(mean) for mean in means]
    np.testing.assert_allclose(identity_templates(vectors, np.arange(30), ids), expected, atol=1e-6)


def test_rounding_of_a_matrix_product_does_not_break_ties():
    """Found on 583 x 1,139 identical vectors: ranks started at 851, expected 1,139 everywhere."""
    rng = np.random.default_rng(0)
    one = unit_length(rng.normal(size=(1, 512)).astype(np.float32))
    probes, gallery = np.repeat(one, 583, 0), np.repeat(one, 1139, 0)
    gallery *= (1 + 2e-7 * rng.uniform(-1, 1, (1139, 1))).astype(np.float32)
    found = rank_gallery(probes, np.arange(583), gallery, np.arange(1139))
    assert set((probes @ gallery.T).ravel().tolist()) > {1.0}
    assert (found.rank == 1139).all()
    np.testing.assert_allclose(found.precision, 1 / 1139 / 2)


def test_average_precision_ranks_equal_scores_ahead():
    assert average_precision(np.array([0.5]), np.array([0.5 - 5e-7, 0.1])) == pytest.approx(1 / 2 / 2)
    assert average_precision(np.array([0.5]), np.array([0.5 - 5e-6, 0.1])) == pytest.approx(1)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e30, 1e38])
def test_unit_length_at_any_scale(scale):
    vectors = (np.array([[3.0, 0.0], [0.6, 0.8], [0.0, 0.0]]) * scale).astype(np.float32)
    unit = unit_length(vectors)
    assert unit.dtype == np.float32
    np.testing.assert_allclose(unit[:2], [[1, 0], [0.6, 0.8]], rtol=1e-6)
    assert unit[2].tolist() == [0, 0]


@pytest.mark.filterwarnings("error")
def test_templates_of_large_vectors_are_finite():
    vectors = np.full((4, 2), 3e38, np.float32)
    found = identity_templates(vectors, np.arange(4), np.zeros(4, int))
    np.testing.assert_allclose(found, [[0.5**0.5, 0.5**0.5]], rtol=1e-6)
