"""Forms of losses that are named after a project, against the formulas of that project."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from model.heads import ClassScores
from model.losses.functional import octuplet
from model.losses.terms import TERMS, Octuplet
from model.training.config import TrainConfig
from model.training.learner import Learner
from pipeline.spec import Preprocessing


def draw(*shape, seed=5):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_of_the_reference_weighs_the_mean_cross_entropy_of_each_view(gamma):
    values, columns = draw(8, 5), torch.tensor([0, 3, 1, 2] * 2)
    entropies = [
        math.log(sum(map(math.exp, row))) - row[k] for row, k in zip(values.tolist(), columns.tolist(), strict=True)
    ]
    logits = ClassScores(values=values, columns=columns)
    means = [sum(entropies[:4]) / 4, sum(entropies[4:]) / 4]
    reference = TERMS.parse(f"focal:gamma={gamma},form=reference")(logits, 2)
    assert reference.tolist() == pytest.approx([(1 - math.exp(-mean)) ** gamma * mean for mean in means])
    by_image = [(1 - math.exp(-entropy)) ** gamma * entropy for entropy in entropies]
    paper = TERMS.parse(f"focal:gamma={gamma}")(logits, 2)
    assert paper.tolist() == pytest.approx([sum(by_image[:4]) / 4, sum(by_image[4:]) / 4])
    assert torch.autograd.gradcheck(
        lambda v: TERMS.parse("focal:form=reference")(ClassScores(values=v, columns=columns), 2),
        values.requires_grad_(),
    )


def test_center_loss_of_the_reference_moves_centers_and_then_measures():
    torch.manual_seed(2)
    term = TERMS.parse("center:weight=0.2,alpha=0.3,form=reference").build(features=8, classes=6).double()
    centers = term.centers.tolist()
    assert 0 < max(abs(value) for row in centers for value in row) <= 8**-0.5
    features, labels = draw(5, 8).requires_grad_(), [4, 0, 4, 2, 4]
    losses = term(features, torch.tensor(labels))
    for label in set(labels):
        images = [x for x, y in zip(features.tolist(), labels, strict=True) if y == label]
        steps = [sum(x[d] - centers[label][d] for x in images) / (1 + len(images)) for d in range(8)]
        centers[label] = [c + 0.3 * step for c, step in zip(centers[label], steps, strict=True)]
    moved = torch.tensor(centers, dtype=torch.float64)
    torch.testing.assert_close(term.centers, moved)
    offsets = features.detach() - moved[labels]
    torch.testing.assert_close(losses.detach(), 0.1 * offsets.square().sum(1))
    losses.sum().backward()
    torch.testing.assert_close(features.grad, 0.2 * offsets)
    term.eval()
    torch.testing.assert_close(term(features, torch.tensor(labels)), losses)  # nothing moves, so nothing changes


DISTANCE = {
    "cosine": lambda a, b: 1 - float(a @ b) / (float(a @ a) * float(b @ b)) ** 0.5,
    "euclidean": lambda a, b: sum((x - y) ** 2 for x, y in zip(a.tolist(), b.tolist(), strict=True)) ** 0.5,
    "square": lambda a, b: sum((x - y) ** 2 for x, y in zip(a.tolist(), b.tolist(), strict=True)),
}


def authors_loss(features, labels, margin, metric):
    """(V, b, D) and b labels. Masked distances are 0 for the positive; the negative is looked for among all candidates."""

    def triplets(anchors, candidates):
        total = 0.0
        for a, anchor in enumerate(features[anchors]):
            distances = [DISTANCE[metric](anchor, other) for other in features[candidates]]
            positives = [d for b, d in enumerate(distances) if labels[b] == labels[a] and b != a]
            negatives = [d for b, d in enumerate(distances) if labels[b] != labels[a]]
            total += max(0.0, margin + max([*positives, 0.0]) - min(negatives or distances))
        return total / len(labels)

    pairs = [sum(triplets(a, b) for a, b in itertools.product((0, view), repeat=2)) for view in range(1, len(features))]
    return sum(pairs) / len(pairs)


@pytest.mark.parametrize("labels", [[0, 1, 0, 1, 2], [0, 1, 2, 3, 4], [0, 0, 0, 0, 0]], ids=str)
@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("metric", DISTANCE)
def test_octuplet_of_the_authors(labels, views, metric):
    features = draw(views, 5, 8, seed=views)
    features.requires_grad_()
    margin = {"cosine": 0.9, "euclidean": 3.0, "square": 12.0}[metric]  # so that some triplets are hard
    expected = authors_loss(features.detach(), labels, margin, metric)
    assert expected > 0

    def loss(x):
        return octuplet(x.flatten(0, 1), torch.tensor(labels * views), views, margin, form="authors", metric=metric)

    assert loss(features).item() == pytest.approx(expected, abs=1e-12)
    assert torch.autograd.gradcheck(loss, features)


def test_octuplet_of_the_authors_takes_several_images_of_an_identity_in_a_view():
    """Two views of two images each are two views of twice as many images; views may have different numbers."""
    torch.manual_seed(0)
    config = TrainConfig(backbone="spherenet4", views="32x2,8x2", losses="cross-entropy+octuplet:form=authors,margin=1")
    learner = Learner(config, classes=5, preprocessing=Preprocessing(size=32))
    features, labels = draw(4, 3, 512).float(), torch.tensor([4, 0, 2])
    _, parts = learner.loss(features.flatten(0, 1), labels, 4)
    expected = authors_loss(features.reshape(2, 6, 512), [4, 0, 2, 4, 0, 2], 1.0, "cosine")
    assert parts["octuplet"].item() == pytest.approx(expected, rel=1e-5)
    assert expected > authors_loss(features[:2], [4, 0, 2], 1.0, "cosine")  # these have no positives
    uneven = draw(6, 16)
    assert octuplet(uneven, torch.arange(2).repeat(3), (2, 1), form="authors").isfinite()
    with pytest.raises(ValueError, match=r"^6 images of 2 views, expected a multiple of 4$"):
        octuplet(uneven, torch.arange(2).repeat(3), (3, 1))
    with pytest.raises(ValueError, match=r"^1 view, expected at least two$"):
        octuplet(uneven, torch.arange(2).repeat(3), (3,))


def test_octuplet_with_one_image_of_each_identity_is_larger_here_than_for_the_authors():
    """They have no positive at all; here the other views of the anchor are positives. Compared: 0.0795 and 0.0265."""
    features, labels = draw(2, 6, 64).flatten(0, 1), torch.arange(6).repeat(2)
    ours, theirs = (Octuplet(form=form, margin=1.0)(features, labels, (1, 1)) for form in ("lrfr", "authors"))
    assert ours > theirs > 0


@pytest.mark.parametrize("metric", DISTANCE)
@pytest.mark.parametrize("form", ["lrfr", "authors"])
def test_octuplet_is_finite_for_equal_images_and_in_bf16(form, metric):
    features = torch.ones(8, 16, requires_grad=True)
    term = Octuplet(form=form, metric=metric)
    term(features, torch.arange(4).repeat(2), (1, 1)).backward()
    assert torch.isfinite(features.grad).all()
    rows = draw(8, 16).float()
    with torch.autocast("cpu", torch.bfloat16):
        value = term(rows.bfloat16(), torch.arange(4).repeat(2), (1, 1))
        assert torch.equal(
            term(rows, torch.arange(4).repeat(2), (1, 1)),
            Octuplet(form=form, metric=metric)(rows, torch.arange(4).repeat(2), (1, 1)),
        )
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, term(rows, torch.arange(4).repeat(2), (1, 1)), rtol=0.05, atol=0.05)


def test_an_unknown_form_or_metric_is_one_line():
    features, labels = draw(4, 3), torch.arange(2).repeat(2)
    with pytest.raises(TypeError, match=r"^form is 'paper', expected lrfr or authors$"):
        octuplet(features, labels, 2, form="paper")
    with pytest.raises(TypeError, match=r"^metric is 'l2', expected one of cosine, euclidean, square$"):
        octuplet(features, labels, 2, metric="l2")


@pytest.mark.parametrize("name", TERMS)
def test_the_help_of_an_option_explains_each_of_its_words(name):
    for option, declared in TERMS[name].declared().items():
        assert all(word in declared.help for word in declared.choices), option
