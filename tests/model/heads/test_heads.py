"""Heads against the formulas of the papers, element by element; edge cases, precision, options."""

from __future__ import annotations

import math
import statistics

import pytest
import torch

from model.heads import HEADS, build_head
from model.losses.functional import cross_entropy
from model.losses.terms import Center
from model.options import OptionError, parse_choice

FEATURES, CLASSES = 6, 5
LABELS = torch.tensor([4, 0, 2, 2, 1, 4, 0])
FORMS = ("arcface:form=insightface", "adaface:form=authors", "adacos:form=reference", "svsoftmax:form=reference")
VARIANTS = (*HEADS, *FORMS)


def head_of(text, classes=CLASSES, features=FEATURES, **options):
    torch.manual_seed(1)
    choice = parse_choice(text)
    return build_head(choice.name, features=features, classes=classes, **{**choice.options, **options}).double()


def batch(seed=2, spread=3.0):
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(len(LABELS), FEATURES, generator=generator, dtype=torch.float64)


def geometry(head, features):
    """Cosines as nested lists, and norms."""
    norms = [math.sqrt(sum(x * x for x in row)) for row in features.tolist()]
    weights = head.weight.tolist()
    cosines = [
        [sum(map(float.__mul__, row, w)) / norm / math.sqrt(sum(x * x for x in w)) for w in weights]
        for row, norm in zip(features.tolist(), norms, strict=True)
    ]
    return cosines, norms


def table(cosines, target, other):
    """Logits from functions of (image, cosine) for the target and the other classes."""
    return [
        [target(i, c) if k == LABELS[i] else other(i, c) for k, c in enumerate(row)] for i, row in enumerate(cosines)
    ]


def assert_logits(scores, expected):
    assert torch.equal(scores.columns, LABELS)
    torch.testing.assert_close(scores.values, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9)


def test_softmax_formula():
    head, features = head_of("softmax"), batch()
    rows = [
        [sum(map(float.__mul__, x, w)) + b for w, b in zip(head.weight.tolist(), head.bias.tolist(), strict=True)]
        for x in features.tolist()
    ]
    assert_logits(head(features, LABELS), rows)


def test_amsoftmax_formula():
    head, features = head_of("amsoftmax", scale=20.0, margin=0.2), batch()
    cosines, _ = geometry(head, features)
    assert_logits(head(features, LABELS), table(cosines, lambda i, c: 20 * (c - 0.2), lambda i, c: 20 * c))


@pytest.mark.parametrize("margin", [0.0, 0.5, 1.4])
def test_arcface_formula(margin):
    head, features = head_of("arcface", margin=margin), batch()
    cosines, _ = geometry(head, features)

    def target(i, c):
        theta = math.acos(c)
        return 64 * (math.cos(theta + margin) if theta + margin < math.pi else c - margin * math.sin(margin))

    assert_logits(head(features, LABELS), table(cosines, target, lambda i, c: 64 * c))


@pytest.mark.parametrize("margin", [1, 2, 3, 4])
def test_asoftmax_formula_and_schedule(margin):
    head = head_of("asoftmax", margin=margin)
    for step in range(3):
        features = batch(step)
        cosines, norms = geometry(head, features)
        weight = max(5.0, 1000.0 / (1 + 0.12 * (step + 1)))  # the authors' code counts from 1

        def target(i, c, weight=weight, norms=norms):
            theta = math.acos(c)
            k = min(int(theta * margin / math.pi), margin - 1)
            psi = (-1) ** k * math.cos(margin * theta) - 2 * k
            return norms[i] * (weight * c + psi) / (1 + weight)

        expected = table(cosines, target, lambda i, c, norms=norms: norms[i] * c)
        assert_logits(head(features, LABELS), expected)
    head.margin.iteration.fill_(10**6)
    far = head(features, LABELS)
    near = head_of("asoftmax", margin=margin, base=0.0)(features, LABELS)
    assert torch.equal(near.values, far.values)  # both at the final lambda


def test_asoftmax_without_lambda_decreases_from_1_to_1_minus_2m():
    head = build_head("asoftmax", features=2, classes=1, base=0.0, least=0.0).double()
    head.weight.data = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    theta = torch.linspace(0, math.pi, 101, dtype=torch.float64)
    features = torch.stack([theta.cos(), theta.sin()], 1)
    psi = head(features, torch.zeros(101, dtype=torch.int64)).values[:, 0]
    assert (psi.diff() < 0).all()
    assert psi[[0, -1]].tolist() == pytest.approx([1.0, -7.0])


def test_adaface_formula_and_averages():
    head = head_of("adaface", momentum=0.25)
    mean, deviation = 20.0, 100.0
    for step in range(3):
        features = batch(step, spread=10.0 * (step + 1))
        cosines, norms = geometry(head, features)
        mean = 0.75 * mean + 0.25 * statistics.mean(norms)
        deviation = 0.75 * deviation + 0.25 * statistics.stdev(norms)
        quality = [max(-1.0, min(1.0, 0.333 * (norm - mean) / (deviation + 1e-3))) for norm in norms]

        def target(i, c, quality=quality):
            theta = max(1e-3, min(math.pi - 1e-3, math.acos(c) - 0.4 * quality[i]))
            return 64 * (math.cos(theta) - 0.4 - 0.4 * quality[i])

        assert_logits(head(features, LABELS), table(cosines, target, lambda i, c: 64 * c))
    assert float(head.margin.mean) == pytest.approx(mean)
    assert float(head.margin.deviation) == pytest.approx(deviation)


@pytest.mark.parametrize("dynamic", [False, True])
def test_adacos_formula_and_scale(dynamic):
    head = head_of("adacos", dynamic=dynamic)
    scale = float(head.margin.scale)
    assert scale == pytest.approx(math.sqrt(2) * math.log(CLASSES - 1), rel=1e-6)  # a float32 buffer
    for step in range(3):
        features = batch(step)
        cosines, _ = geometry(head, features)
        if dynamic:
            others = [math.exp(scale * c) for i, row in enumerate(cosines) for k, c in enumerate(row) if k != LABELS[i]]
            median = statistics.median_low([math.acos(row[LABELS[i]]) for i, row in enumerate(cosines)])
            scale = math.log(sum(others) / len(LABELS)) / math.cos(min(math.pi / 4, median))
        assert_logits(head(features, LABELS), table(cosines, lambda i, c: scale * c, lambda i, c: scale * c))  # noqa: B023
    assert float(head.margin.scale) == pytest.approx(scale)


def test_svsoftmax_formula():
    head, features = head_of("svsoftmax"), batch()
    cosines, _ = geometry(head, features)
    targets = [row[LABELS[i]] for i, row in enumerate(cosines)]
    hard = sum(c > targets[i] - 0.35 for i, row in enumerate(cosines) for k, c in enumerate(row) if k != LABELS[i])
    assert 0 < hard < len(LABELS) * (CLASSES - 1)

    def other(i, c):
        return 30 * (1.2 * c + 0.2 if c > targets[i] - 0.35 else c)

    assert_logits(head(features, LABELS), table(cosines, lambda i, c: 30 * (c - 0.35), other))


# the gradient of insightface's form is not the gradient of its value: see test_head_forms
@pytest.mark.parametrize("name", sorted({*VARIANTS} - {"arcface:form=insightface"}))
def test_gradients(name):
    head, features = head_of(name).eval(), batch().requires_grad_()
    norms = features.detach().norm(dim=1, keepdim=True)
    names = [key for key, _ in head.named_parameters()]

    def losses(features, *weights):
        if name.startswith("adaface"):  # its margin depends on the norms, without gradient by design
            features = torch.nn.functional.normalize(features) * norms
        parameters = dict(zip(names, weights, strict=True))
        return cross_entropy(torch.func.functional_call(head, parameters, (features, LABELS)))

    assert torch.autograd.gradcheck(losses, (features, *head.parameters()), atol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_extreme_features_have_finite_losses_and_gradients(name):
    head = head_of(name).float()
    weight = head.weight.detach()
    features = torch.stack([weight[4], -weight[0], torch.zeros(FEATURES), 1e6 * weight[2], 1e-6 * weight[3]])
    features.requires_grad_()
    loss = cross_entropy(head(features, torch.tensor([4, 0, 2, 2, 2])))
    loss.mean().backward()
    assert len(loss) == 5
    assert torch.isfinite(loss).all()
    assert torch.isfinite(features.grad).all()
    assert torch.isfinite(head.weight.grad).all()


@pytest.mark.parametrize("name", VARIANTS)
def test_under_autocast_the_head_computes_in_fp32(name):
    head = head_of(name, features=512, classes=50).float().eval()
    generator = torch.Generator().manual_seed(5)
    features, labels = torch.randn(9, 512, generator=generator), torch.arange(9)
    expected = cross_entropy(head(features, labels))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(cross_entropy(head(features, labels)), expected)
        rounded = head(features.bfloat16(), labels)
        assert rounded.values.dtype == torch.float32
        torch.testing.assert_close(cross_entropy(rounded), expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("name", sorted(set(HEADS) - {"adacos"}))
def test_a_single_class_has_no_loss(name):
    assert cross_entropy(head_of(name, classes=1)(batch(), torch.zeros_like(LABELS))).tolist() == [0.0] * len(LABELS)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("label", [-1, CLASSES])
def test_a_label_out_of_range_is_an_error(name, label):
    with pytest.raises((IndexError, RuntimeError), match="out of"):
        cross_entropy(head_of(name)(batch(), LABELS.index_fill(0, torch.tensor([3]), label)))


def test_initial_weights_are_uniform():
    assert_uniform(build_head("amsoftmax", features=512, classes=200).weight, 1.0)
    linear = build_head("softmax", features=512, classes=200)
    assert_uniform(linear.weight, 1 / math.sqrt(512))
    assert_uniform(linear.bias, 1 / math.sqrt(512))


def assert_uniform(values, bound):
    assert values.abs().max() <= bound
    assert values.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cosface", {}, "head 'cosface' is unknown; did you mean amsoftmax? choose from softmax, asoftmax"),
        (
            "arcface",
            {"h": 1.0},
            "head arcface has no option 'h'; it has scale, margin, form, sample, sampling, seed",
        ),
        (
            "softmax",
            {"scale": 1.0},
            "head softmax has no option 'scale'; it has sample, sampling, seed: leave scale out",
        ),
        ("arcface", {"scale": 0}, "head arcface: scale is 0, expected a finite number above 0"),
        ("arcface", {"scale": float("inf")}, "scale is inf, expected a finite number above 0"),
        ("arcface", {"scale": float("nan")}, "scale is nan, expected a finite number above 0"),
        ("arcface", {"margin": True}, "margin is True, expected a finite number at least 0 and at most 1.5"),
        ("asoftmax", {"margin": 2.5}, "margin is 2.5, expected a whole number at least 1"),
        ("adacos", {"dynamic": 1}, "dynamic is 1, expected true or false"),
        ("adacos", {"classes": 2}, "head adacos: 2 classes on 1 rank, expected at least 3; add identities"),
        ("softmax", {"classes": 0}, "head softmax: 0 classes on 1 rank, expected at least 1"),
        ("softmax", {"sample": 0.0}, "sample is 0.0, expected a finite number above 0 and at most 1"),
        ("softmax", {"seed": -1}, "seed is -1, expected a whole number at least 0"),
        ("arcface", {"form": "paper"}, "head arcface: form is 'paper', expected one of authors, insightface"),
        (
            "svsoftmax",
            {"form": "reference", "scale": 64.0},
            "form reference has its own scale and margin; leave scale and",
        ),
        ("svsoftmax", {"form": "reference", "classes": 2}, "head svsoftmax: 2 classes on 1 rank, expected at least 3"),
    ],
)
def test_invalid_options_are_errors(name, options, message):
    with pytest.raises(OptionError) as error:
        build_head(name, **{"features": 4, "classes": 9, **options})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_center_loss_options_are_checked_too():
    with pytest.raises(OptionError, match="loss center: alpha is 2, expected a finite number at least 0 and at most 1"):
        Center(alpha=2)


def test_every_option_of_a_head_changes_it():
    changed = {"scale": 7.0, "margin": 1, "base": 10.0, "decay": 900.0, "least": 999.0, "h": 0.9, "momentum": 0.9}
    changed |= {"dynamic": False, "t": 2.0, "sample": 0.3}
    checked = 0
    for name, kind in HEADS.items():
        for option, declared in kind.declared().items():
            if option in ("sampling", "seed"):  # of the samples: see test_head_state
                continue
            value = next(word for word in declared.choices if word != declared.default) if declared.choices else None
            logits = []
            for head in (head_of(name), head_of(name, **{option: value or changed[option]})):
                near_the_target = head.weight[LABELS].detach() * 90 - batch()  # within reach of every limit
                head(batch(), LABELS)
                logits.append(head(torch.cat([near_the_target, -near_the_target]), LABELS.repeat(2)).values)
            assert not torch.equal(*logits), (name, option)
            checked += 1
    assert checked == 27
