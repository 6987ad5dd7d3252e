"""Losses between a student and its teacher, against sums written out, and their text form."""

from __future__ import annotations

import math

import pytest
import torch

from model.losses.distillation import attention, attention_map, cosine_distances, relational, squared_distances
from model.losses.terms import Distill, parse_losses
from model.options import OptionError
from model.training.config import TrainConfig


def draw(seed, images=6, size=5):
    return torch.randn(images, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cosine(one, other):
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return dot / math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))


def test_each_image_is_compared_with_its_target():
    student, teacher = draw(1).tolist(), draw(2).tolist()
    expected = [1 - cosine(one, other) for one, other in zip(student, teacher, strict=True)]
    assert cosine_distances(draw(1), draw(2)).tolist() == pytest.approx(expected)
    unit = (
        [[value / math.hypot(*row) for value in row] for row in student],
        [[value / math.hypot(*row) for value in row] for row in teacher],
    )
    squares = [math.dist(one, other) ** 2 for one, other in zip(*unit, strict=True)]
    assert squared_distances(draw(1), draw(2)).tolist() == pytest.approx(squares)
    assert squares == pytest.approx([2 * value for value in expected])


def test_the_relational_loss_compares_all_pairs_of_images():
    student, teacher = draw(1).tolist(), draw(2).tolist()
    pairs = [(i, j) for i in range(6) for j in range(6)]
    squares = [(cosine(student[i], student[j]) - cosine(teacher[i], teacher[j])) ** 2 for i, j in pairs]
    assert float(relational(draw(1), draw(2))) == pytest.approx(sum(squares) / 36)
    turned = draw(2) @ torch.linalg.qr(draw(3, 5))[0]
    assert float(relational(3 * turned, draw(2))) == pytest.approx(0, abs=1e-12)


def test_attention_compares_where_maps_are_large():
    maps = draw(3, 2 * 4 * 3, 3).reshape(2, 4, 3, 3)  # two images, four channels
    sums = [[sum(maps[n, c, y, x] ** 2 for c in range(4)) for y in range(3) for x in range(3)] for n in range(2)]
    torch.testing.assert_close(attention_map(maps), torch.tensor(sums, dtype=torch.float64))
    tokens = draw(4, 2 * 5, 6).reshape(2, 5, 6)
    torch.testing.assert_close(attention_map(tokens), tokens.square().sum(2))
    assert attention_map(maps.bfloat16()).dtype == torch.float32
    student, teacher = [draw(5, 2, 9), draw(6, 2, 4)], [draw(7, 2, 9), draw(8, 2, 4)]
    means = [
        sum(1 - cosine(a[n].tolist(), b[n].tolist()) for a, b in zip(student, teacher, strict=True)) / 2 for n in (0, 1)
    ]
    assert attention(student, teacher).tolist() == pytest.approx(means)


@pytest.mark.parametrize("loss", [cosine_distances, squared_distances, relational])
def test_gradients(loss):
    assert torch.autograd.gradcheck(loss, (draw(1).requires_grad_(), draw(2)))
    with pytest.raises(TypeError, match=r"targets is a Tensor of float64 and shape .6, 4., expected a target for each"):
        loss(draw(1), draw(2, size=4))


def test_a_term_averages_each_view_and_relations_over_all():
    student, teacher = draw(1), draw(2)
    distances = cosine_distances(student, teacher).tolist()
    by_view = [sum(distances[:3]) / 3, sum(distances[3:]) / 3]
    assert Distill()(student, teacher, 2).tolist() == pytest.approx(by_view)
    assert Distill(form="mse")(student, teacher, 2).tolist() == pytest.approx([2 * value for value in by_view])
    assert float(Distill(form="relational")(student, teacher, 2)) == float(relational(student, teacher))


def test_several_forms_may_be_added_and_used_alone():
    losses = parse_losses("cross-entropy+distill:weight=20+distill:form=relational")
    assert [(term.form, term.weight, term.label) for term in losses.distill] == [
        ("cosine", 20.0, "distill"),
        ("relational", 1.0, "distill-relational"),
    ]
    assert parse_losses(str(losses)) == losses
    assert parse_losses("distill").criterion is None
    assert losses.embedding_terms == losses.distill
    looks = parse_losses("focal+distill:form=attention")
    assert (looks.embedding_terms, looks.attention.label) == ((), "distill-attention")
    for text in ("distill:form=attention", "octuplet+distill:form=attention"):  # the last layers would learn nothing
        with pytest.raises(OptionError, match="no criterion; expected"):
            parse_losses(text)
    with pytest.raises(OptionError, match=r"distill and distill; expected .*; each form of distill at most once"):
        parse_losses("cross-entropy+distill+distill:weight=2")
    with pytest.raises(
        OptionError, match=r"no criterion; expected one criterion .*; each form of distill at most once"
    ):
        parse_losses("hardest-triplet")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"losses": "cross-entropy+distill"},
            "losses has distill, but there is no teacher: name a network with --teacher",
        ),
        ({"teacher": "a.pt"}, r"teacher is a.pt, but no loss is for it: add \+distill to --losses"),
        (
            {"losses": "distill+distill:form=attention", "teacher": "a", "compile": True},
            "losses distill:form=attention and compile exclude each other",
        ),
        ({"teacher_preprocessing": "arcface"}, "teacher_preprocessing is for a teacher: name a network with --teacher"),
    ],
)
def test_a_teacher_and_a_loss_for_it_go_together(settings, says):
    with pytest.raises(OptionError, match=says):
        TrainConfig(**settings)


def test_settings_of_runs_without_a_teacher_are_as_before():
    assert not [name for name in TrainConfig().to_dict() if "teacher" in name]
    taught = TrainConfig(losses="distill", teacher="a.pt")
    assert TrainConfig(**taught.to_dict()) == taught
