"""Head and losses: the reference's figures, naive oracles, gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from model.config import TrainConfig
from model.heads import AMSoftmax
from model.losses import hardest_triplet, view_cross_entropies
from model.train import Learner
from shards.schema import Preprocessing


@pytest.fixture(scope="module")
def figures():
    from pathlib import Path

    return np.load(Path(__file__).parent.parent / "golden" / "losses.npz")


def head_of(weights):
    head = AMSoftmax(512, len(weights))
    head.weight.data = torch.from_numpy(weights)
    return head


def test_logits_and_losses_equal_the_reference(figures):
    features = torch.from_numpy(figures["features"]).flatten(0, 1)
    labels = torch.from_numpy(figures["labels"]).repeat(4)
    logits = head_of(figures["weights"])(features, labels)
    np.testing.assert_allclose(logits.detach().reshape(4, 12, 40), figures["logits"], rtol=1e-5, atol=1e-5)
    cross_entropies = view_cross_entropies(logits, labels, 4)
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
def test_triplet_equals_the_naive_one(labels, margin):
    features = torch.randn(6, 16, generator=torch.Generator().manual_seed(len(set(labels))), dtype=torch.float64)
    value = hardest_triplet(features, torch.tensor(labels), margin)
    assert float(value) == pytest.approx(naive_triplet(features, labels, margin), abs=1e-6)


def test_triplet_gradient_is_finite_even_where_images_are_the_same():
    features = torch.ones(8, 16, requires_grad=True)
    hardest_triplet(features, torch.arange(4).repeat(2)).backward()
    assert torch.isfinite(features.grad).all()


def test_am_softmax_formula():
    torch.manual_seed(1)
    head, features, labels = AMSoftmax(8, 5, scale=20.0, margin=0.2), torch.randn(3, 8), torch.tensor([4, 0, 2])
    logits = head(features, labels).detach()
    for row in range(3):
        for column in range(5):
            w = head.weight[column].detach()
            cosine = float(features[row] @ w / (features[row].norm() * w.norm()))
            assert float(logits[row, column]) == pytest.approx(
                20 * (cosine - 0.2 * (int(labels[row]) == column)), abs=1e-4
            )


def test_am_softmax_weights_start_uniform():
    weight = AMSoftmax(512, 200).weight
    assert weight.min() > -1.0001
    assert weight.max() < 1.0001
    assert weight.std().item() == pytest.approx(1 / math.sqrt(3), rel=0.02)


def test_cosines_are_fp32_under_autocast():
    head = AMSoftmax(512, 50)
    features, labels = torch.randn(4, 512), torch.arange(4)
    exact, triplet = head(features, labels), hardest_triplet(features, labels)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(head(features, labels), exact)
        assert torch.equal(hardest_triplet(features, labels), triplet)


class Flat(nn.Module):
    """A backbone small enough to differentiate numerically."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(48, 512)

    def forward(self, x):
        return self.linear(x.flatten(1))


def test_one_pass_is_the_four_pass_loss_and_gradient():
    torch.manual_seed(0)
    config = TrainConfig(backbone="spherenet4", batch_size=3, triplet_weight=0.7)
    learner = Learner(config, classes=6, preprocessing=Preprocessing().to_dict())
    learner.backbone = Flat()
    images = torch.randint(0, 256, (4, 3, 4, 4, 3), dtype=torch.uint8)
    labels = torch.tensor([5, 0, 2])
    loss, parts = learner(images, labels)
    loss.backward()
    gradients = [parameter.grad.clone() for parameter in learner.parameters()]
    learner.zero_grad()
    passes = [learner.backbone(learner.inputs(view[None])) for view in images]
    ce = [nn.functional.cross_entropy(learner.head(features, labels), labels) for features in passes]
    naive = sum(ce) / 4 + 0.7 * hardest_triplet(torch.cat(passes), labels.repeat(4))
    naive.backward()
    assert loss.item() == pytest.approx(naive.item(), rel=1e-6)
    assert [parts[f"ce@{size}"].item() for size in (128, 8, 12, 16)] == pytest.approx(
        [value.item() for value in ce], rel=1e-6
    )
    for parameter, gradient in zip(learner.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-5)
