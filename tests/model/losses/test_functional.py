"""Losses against golden values of the reference and naive implementations; gradients."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from model.heads import ClassScores, build_head
from model.losses.functional import cross_entropy, focal, hardest_triplet, octuplet, view_means
from model.training.config import TrainConfig
from model.training.learner import Learner, StepInputs
from pipeline.spec import Preprocessing


@pytest.fixture(scope="module")
def figures(golden):
    return golden("losses")


def head_of(weights):
    head = build_head("amsoftmax", features=512, classes=len(weights))
    head.weight.data = torch.from_numpy(weights)
    return head


def test_logits_and_losses_equal_the_reference(figures):
    features = torch.from_numpy(figures["features"]).flatten(0, 1)
    labels = torch.from_numpy(figures["labels"]).repeat(4)
    logits = head_of(figures["weights"])(features, labels)
    np.testing.assert_allclose(logits.values.detach().reshape(4, 12, 40), figures["logits"], rtol=1e-5, atol=1e-5)
    cross_entropies = view_means(cross_entropy(logits), 4)
    np.testing.assert_allclose(cross_entropies.detach(), figures["ce"], rtol=1e-5)
    triplet = hardest_triplet(features, labels)
    np.testing.assert_allclose(triplet, figures["triplet"], rtol=1e-5)
    np.testing.assert_allclose((cross_entropies.mean() + triplet).detach(), figures["total"], rtol=1e-5)


def naive_triplet(features, labels, margin):
    total = 0.0
    for a, anchor in enumerate(features):
        distances = [1 - float(anchor @ other / (anchor.norm() * other.norm())) for other in features]
        positives = [d for b, d in enumerate(distances) if labels[b] == labels[a] and b != a]
        negatives = [d for b, d in enumerate(distances) if labels[b] != labels[a]]
        if positives and negatives:
            total += max(0.0, margin + max(positives) - min(negatives))
    return total / len(features)


@pytest.mark.parametrize("labels", [[0, 1, 2, 0, 1, 2], [0, 0, 0, 1, 1, 2], [0, 0, 0, 0, 0, 0], [0, 1, 2, 3, 4, 5]])
@pytest.mark.parametrize("margin", [0.0, 0.3, 1.0])
def test_triplet_equals_the_naive_loss(labels, margin):
    features = torch.randn(6, 16, generator=torch.Generator().manual_seed(len(set(labels))), dtype=torch.float64)
    value = hardest_triplet(features, torch.tensor(labels), margin)
    assert float(value) == pytest.approx(naive_triplet(features, labels, margin), abs=1e-6)


def test_triplet_gradient_is_finite_for_equal_images():
    features = torch.ones(8, 16, requires_grad=True)
    hardest_triplet(features, torch.arange(4).repeat(2)).backward()
    assert torch.isfinite(features.grad).all()


def test_cosines_are_fp32_under_autocast():
    features, labels = torch.randn(4, 512), torch.arange(4)
    triplet = hardest_triplet(features, labels)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(hardest_triplet(features, labels), triplet)


def random_logits(rows=5, classes=7):
    generator = torch.Generator().manual_seed(3)
    values = 4.0 * torch.randn(rows, classes, generator=generator, dtype=torch.float64)
    return ClassScores(values=values, columns=torch.tensor([0, 3, 3, 6, 2]))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_criteria_equal_the_naive_losses(gamma):
    logits = random_logits()
    entropies, losses = cross_entropy(logits), focal(logits, gamma)
    for row, column in enumerate(logits.columns.tolist()):
        values = logits.values[row].tolist()
        p = math.exp(values[column]) / sum(map(math.exp, values))
        assert float(entropies[row]) == pytest.approx(-math.log(p), rel=1e-9)
        assert float(losses[row]) == pytest.approx(-((1 - p) ** gamma) * math.log(p), rel=1e-9)
    values = logits.values.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: focal(ClassScores(values=v, columns=logits.columns), gamma), values)


def test_focal_without_gamma_is_the_cross_entropy():
    assert torch.equal(focal(random_logits(), 0.0), cross_entropy(random_logits()))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_has_a_finite_gradient_at_probabilities_0_and_1(gamma):
    values = torch.tensor([[500.0, -500.0], [-500.0, 500.0]], requires_grad=True)
    losses = focal(ClassScores(values=values, columns=torch.tensor([0, 0])), gamma)
    losses.sum().backward()
    assert losses.tolist() == [0.0, 1000.0]
    assert torch.isfinite(values.grad).all()


def test_view_means():
    assert view_means(torch.tensor([1.0, 2.0, 3.0, 5.0, 6.0, 7.0]), 2).tolist() == [2.0, 6.0]


def naive_octuplet(features, labels, views, margin):
    """Loops over anchors, positives and negatives; features (V, b, D), labels (b,)."""

    def distance(a, b):
        return 1 - float(a @ b / (a.norm() * b.norm()))

    def triplets(anchors, candidates):
        total = 0.0
        for a, anchor in enumerate(features[anchors]):
            distances = [distance(anchor, other) for other in features[candidates]]
            itself = {a} if anchors == candidates else set()
            positives = [d for b, d in enumerate(distances) if labels[b] == labels[a] and b not in itself]
            negatives = [d for b, d in enumerate(distances) if labels[b] != labels[a]]
            if positives and negatives:
                total += max(0.0, margin + max(positives) - min(negatives))
        return total / len(labels)

    octuplets = [
        sum(triplets(anchors, candidates) for anchors, candidates in itertools.product((0, view), repeat=2))
        for view in range(1, views)
    ]
    return sum(octuplets) / len(octuplets)


@pytest.mark.parametrize("labels", [[0, 1, 0, 1, 2], [0, 1, 2, 3, 4], [0, 0, 0, 0, 0]])
@pytest.mark.parametrize("views", [2, 4])
def test_octuplet_equals_the_naive_loss(labels, views):
    generator = torch.Generator().manual_seed(views)
    features = torch.randn(views, 5, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    value = octuplet(features.flatten(0, 1), torch.tensor(labels * views), views)
    expected = naive_octuplet(features.detach(), labels, views, 0.5)
    assert (expected > 0) == (len(set(labels)) > 1)
    assert value.item() == pytest.approx(expected, abs=1e-12)
    assert torch.autograd.gradcheck(
        lambda x: octuplet(x.flatten(0, 1), torch.tensor(labels * views), views, 0.5), features
    )


class Flat(nn.Module):
    """A backbone small enough to differentiate numerically."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(48, 512)

    def forward(self, x):
        return self.linear(x.flatten(1))


def test_one_pass_equals_the_loss_and_gradient_of_four_passes():
    torch.manual_seed(0)
    config = TrainConfig(backbone="spherenet4", losses="cross-entropy+hardest-triplet:weight=0.7")
    learner = Learner(config, classes=6, preprocessing=Preprocessing())
    learner.backbone = Flat()
    images = torch.randint(0, 256, (4, 3, 4, 4, 3), dtype=torch.uint8)
    labels = torch.tensor([5, 0, 2])
    loss, parts = learner(StepInputs(images, labels))
    loss.backward()
    gradients = [parameter.grad.clone() for parameter in learner.parameters()]
    learner.zero_grad()
    passes = [learner.backbone(learner.inputs(view[None])) for view in images]
    ce = [nn.functional.cross_entropy(learner.head(features, labels).values, labels) for features in passes]
    naive = sum(ce) / 4 + 0.7 * hardest_triplet(torch.cat(passes), labels.repeat(4))
    naive.backward()
    assert loss.item() == pytest.approx(naive.item(), rel=1e-6)
    assert [parts[f"ce@{size}"].item() for size in (128, 8, 12, 16)] == pytest.approx(
        [value.item() for value in ce], rel=1e-6
    )
    for parameter, gradient in zip(learner.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-5)
