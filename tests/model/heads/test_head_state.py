"""Class sampling, center loss, and the state of heads."""

from __future__ import annotations

import io

import pytest
import torch

from model.errors import CheckpointError
from model.heads import HEADS, build_head
from model.heads.classifier import sample_classes
from model.losses.functional import cross_entropy
from model.losses.terms import Center

FEATURES, CLASSES = 8, 40


def build(name, **options):
    torch.manual_seed(4)
    return build_head(name, features=FEATURES, classes=CLASSES, **options)


def batch(number):
    generator = torch.Generator().manual_seed(number)
    return torch.randn(12, FEATURES, generator=generator), torch.randint(0, CLASSES, (12,), generator=generator)


def train(head, steps, start=0):
    """Trains ``steps`` updates from batch number ``start``; returns their losses."""
    optimiser = torch.optim.SGD(head.parameters(), lr=0.1)
    losses = []
    for number in range(start, start + steps):
        loss = cross_entropy(head(*batch(number))).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.37, 1.0])
def test_a_sample_has_all_positives_and_a_fraction_of_the_others(fraction):
    labels = torch.tensor([7, 3, 3, 999, 0])
    sample = sample_classes(labels, 1000, fraction, seed=1, draw=2)
    assert set(labels.tolist()) <= set(sample.tolist())
    assert len(sample) == 4 + round(fraction * 996)
    assert (sample.diff() > 0).all()
    assert sample.max() < 1000


def test_samples_depend_on_seed_and_draw_and_are_uniform():
    labels, counts = torch.tensor([5]), torch.zeros(100)
    for draw in range(400):
        counts[sample_classes(labels, 100, 0.25, seed=0, draw=draw)] += 1
    assert counts[5] == 400
    others = counts[torch.arange(100) != 5]
    assert others.sum() == 400 * round(0.25 * 99)
    assert 65 < others.min() < others.max() < 140  # mean 101, standard deviation 9
    same, again, next_draw, other_seed = (
        sample_classes(labels, 100, 0.25, seed=seed, draw=draw).tolist()
        for seed, draw in ((0, 1), (0, 1), (0, 2), (1, 1))
    )
    assert same == again
    assert same != next_draw
    assert same != other_seed


@pytest.mark.parametrize("name", HEADS)
def test_a_sampled_head_equals_the_full_head_on_the_sample(name):
    head, features, labels = build(name, sample=0.3, seed=9), *batch(0)
    sample = sample_classes(labels, CLASSES, 0.3, seed=9, draw=0)
    small = build_head(name, features=FEATURES, classes=len(sample))
    for parameter, whole in zip(small.parameters(), head.parameters(), strict=True):
        parameter.data = whole.data[sample].clone()
    small.margin.load_state_dict(head.margin.state_dict())
    expected = small(features, torch.searchsorted(sample, labels))
    scores = head(features, labels)
    assert torch.equal(scores.values, expected.values)
    assert torch.equal(scores.columns, expected.columns)
    cross_entropy(scores).mean().backward()
    touched = head.weight.grad.abs().sum(1).nonzero()[:, 0]
    assert torch.equal(touched, sample)


def test_every_step_draws_another_sample():
    head, (features, labels) = build("amsoftmax", sample=0.3, seed=9), batch(0)
    for draw in range(3):
        (gradient,) = torch.autograd.grad(cross_entropy(head(features, labels)).sum(), head.weight)
        touched = gradient.abs().sum(1).nonzero()[:, 0]
        assert torch.equal(touched, sample_classes(labels, CLASSES, 0.3, seed=9, draw=draw))


def test_columns_of_local_remote_and_invalid_labels(monkeypatch):
    monkeypatch.setattr("model.heads.rows.shard_bounds", lambda count, group: (3, 7))
    labels = torch.tensor([0, 2, 3, 6, 7, CLASSES - 1, CLASSES, -1])
    assert build("amsoftmax").columns(labels).tolist() == [-1, -1, 0, 3, -1, -1, 4, 4]


@pytest.mark.parametrize("name", HEADS)
def test_a_sampled_head_scores_all_classes_in_evaluation_mode(name):
    sampled, full, (features, labels) = build(name, sample=0.3), build(name), batch(0)
    assert torch.equal(sampled.eval()(features, labels).values, full.eval()(features, labels).values)
    assert int(sampled.draws) == 0


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("sample", [0.3, 1.0])
def test_a_resumed_head_continues_exactly(name, sample):
    whole = build(name, sample=sample)
    losses = train(whole, 6)
    cut = build(name, sample=sample)
    assert train(cut, 3) == losses[:3]
    file = io.BytesIO()
    torch.save(cut.full_state(), file)
    file.seek(0)
    torch.manual_seed(77)
    resumed = build_head(name, features=FEATURES, classes=CLASSES, sample=sample)
    resumed.load_full_state(torch.load(file, weights_only=True))
    assert train(resumed, 3, start=3) == losses[3:]
    for ours, theirs in zip(resumed.state_dict().values(), whole.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("name", "buffers"),
    [
        ("amsoftmax", []),
        ("asoftmax", ["margin.iteration"]),
        ("adaface", ["margin.mean", "margin.deviation"]),
        ("adacos", ["margin.scale"]),
    ],
)
def test_buffers_are_updated_in_training_mode_only(name, buffers):
    head = build(name)
    assert list(head.full_state()) == ["weight", *buffers]
    before = {key: value.clone() for key, value in head.full_state().items()}
    head.eval()(*batch(0))
    assert all(torch.equal(before[key], value) for key, value in head.full_state().items())
    head.train()(*batch(0))
    assert [key for key in buffers if torch.equal(before[key], head.full_state()[key])] == []


@pytest.mark.parametrize("name", ["adaface", "adacos"])
def test_a_batch_that_is_not_finite_does_not_change_buffers(name):
    head, (features, labels) = build(name), batch(0)
    head(features, labels)
    before = {key: value.clone() for key, value in head.full_state().items()}
    features[0, 0] = torch.nan
    assert not torch.isfinite(cross_entropy(head(features, labels))).all()
    assert all(torch.equal(before[key], value) for key, value in head.full_state().items())


def test_an_adaface_batch_of_one_updates_the_mean_only():
    head = build("adaface")
    head(torch.ones(1, FEATURES), torch.tensor([3]))
    assert float(head.margin.mean) == pytest.approx(0.99 * 20 + 0.01 * FEATURES**0.5)
    assert float(head.margin.deviation) == 100.0


def test_adacos_skips_updates_that_are_not_positive():
    head = build_head("adacos", features=2, classes=3)
    head.weight.data = torch.tensor([[1.0, 0.0], [-1.0, 1e-3], [-1.0, -1e-3]])
    before = head.margin.scale.clone()
    head(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))  # B = 2 exp(-s cos 0) < 1
    assert torch.equal(head.margin.scale, before)


def test_a_state_that_does_not_fit_is_an_error():
    head = build("amsoftmax")
    with pytest.raises(
        CheckpointError, match="the saved head has bias, weight, expected weight; use the head and options"
    ):
        head.load_full_state(build("softmax").full_state())
    with pytest.raises(
        CheckpointError, match=r"the saved head's weight is \(7, 8\), expected \(40, 8\); use the identities"
    ):
        head.load_full_state({"weight": torch.zeros(7, 8)})


def naive_centers(centers, features, labels, alpha):
    moved = [list(center) for center in centers]
    for label in set(labels):
        images = [x for x, y in zip(features, labels, strict=True) if y == label]
        for d in range(len(centers[label])):
            moved[label][d] -= alpha * sum(centers[label][d] - x[d] for x in images) / (1 + len(images))
    return moved


def test_center_loss_equals_the_formula_of_the_paper():
    term = Center(weight=0.2, alpha=0.3).build(features=FEATURES, classes=CLASSES).double()
    centers = term.centers.tolist()
    for number in range(3):
        features, labels = batch(number)
        labels[1] = labels[0]  # two images of one class
        features = features.double().requires_grad_()
        losses = term(features, labels)
        x, y = features.tolist(), labels.tolist()
        assert losses.tolist() == pytest.approx(
            [0.1 * sum((a - c) ** 2 for a, c in zip(x[i], centers[y[i]], strict=True)) for i in range(12)]
        )
        losses.sum().backward()
        torch.testing.assert_close(
            features.grad, 0.2 * (features.detach() - torch.tensor(centers, dtype=torch.float64)[labels])
        )
        centers = naive_centers(centers, x, y, 0.3)
        torch.testing.assert_close(term.centers, torch.tensor(centers, dtype=torch.float64))
    assert list(term.parameters()) == []


def test_centers_do_not_move_in_evaluation_mode_or_for_features_that_are_not_finite():
    term, (features, labels) = Center().build(features=FEATURES, classes=CLASSES), batch(0)
    term.eval()(features, labels)
    assert not term.centers.any()
    term.train()(features.fill_(torch.nan), labels)
    assert not term.centers.any()


@pytest.mark.parametrize("form", ["paper", "reference"])
def test_centers_resume(form):
    torch.manual_seed(4)
    term, other = (Center(form=form).build(features=FEATURES, classes=CLASSES) for _ in range(2))
    term(*batch(0))
    other.load_full_state(term.full_state())
    assert list(term.full_state()) == ["centers"]
    assert torch.equal(term(*batch(1)), other(*batch(1)))
    with torch.autocast("cpu", torch.bfloat16):
        assert term(batch(2)[0].bfloat16(), batch(2)[1]).dtype == torch.float32
