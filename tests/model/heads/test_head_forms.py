"""Forms of heads that are named after a project, against the formulas of that project; facts of peers' code."""

from __future__ import annotations

import math
import statistics
from typing import get_args

import pytest
import torch

from model.heads import HEADS
from model.heads.classifier import sample_classes
from model.heads.rows import INITIAL_ROWS
from model.losses.functional import cross_entropy
from model.training.config import ClassRows, TrainConfig
from model.training.learner import Learner
from pipeline.spec import Preprocessing

MARGIN, SCALE = 0.5, 64.0


def build(text, *, classes, features):
    torch.manual_seed(1)
    return HEADS.parse(text).build(features=features, classes=classes).double()


def at_angles(theta):
    """A head of three orthogonal classes in 3-d, and unit features at these angles to class 0, in its plane with class 1."""

    def head(text):
        built = build(text, classes=3, features=3)
        built.weight.data = torch.eye(3, dtype=torch.float64)
        return built

    rows = [[math.cos(angle), math.sin(angle), 0.0] for angle in theta]
    return head, torch.tensor(rows, dtype=torch.float64, requires_grad=True)


def softmax_loss(logits):
    """Cross-entropy with class 0 as the target, and the probabilities."""
    total = sum(map(math.exp, logits))
    return math.log(total) - logits[0], [math.exp(value) / total for value in logits]


THETA = [0.3, 1.2, 2.0, math.pi - MARGIN - 0.01, math.pi - MARGIN + 0.01, math.pi - 0.05]


def test_arcface_of_insightface_is_the_plain_cosine_with_the_gradient_of_no_margin():
    head, features = at_angles(THETA)
    losses = cross_entropy(
        head("arcface:form=insightface,margin=0.5,scale=8")(features, torch.zeros(6, dtype=torch.int64))
    )
    losses.sum().backward()
    assert len(THETA) == 6
    for number, angle in enumerate(THETA):
        cosines = [math.cos(angle), math.sin(angle), 0.0]
        loss, p = softmax_loss([8 * math.cos(angle + MARGIN), 8 * cosines[1], 0.0])
        assert losses[number].item() == pytest.approx(loss, rel=1e-9)
        by_cosine = [8 * (p[0] - 1), 8 * p[1], 8 * p[2]]  # the arc cosine is left out
        x = features[number].tolist()
        expected = [
            sum(by_cosine[k] * ((k == d) - cosines[k] * x[d]) for k in range(3)) for d in range(3)
        ]  # d cos / dx of a unit feature
        assert features.grad[number].tolist() == pytest.approx(expected, abs=1e-9)


def test_arcface_of_the_authors_is_linear_beyond_pi_minus_m():
    head, features = at_angles(THETA)
    labels = torch.zeros(6, dtype=torch.int64)
    found = {
        form: cross_entropy(head(f"arcface:form={form}")(features, labels)).tolist()
        for form in ("authors", "insightface")
    }
    assert found["authors"][:4] == pytest.approx(found["insightface"][:4])
    for angle, ours, theirs in zip(THETA[4:], found["authors"][4:], found["insightface"][4:], strict=True):
        others = [SCALE * math.sin(angle), 0.0]
        linear = SCALE * (math.cos(angle) - MARGIN * math.sin(MARGIN))
        assert ours == pytest.approx(softmax_loss([linear, *others])[0])
        assert theirs == pytest.approx(softmax_loss([SCALE * math.cos(angle + MARGIN), *others])[0])
    # insightface's loss is the lower one there: 66.7 against 88.1 in a comparison with its own code
    assert found["authors"][5] - found["insightface"][5] == pytest.approx(21.7, abs=0.5)


def geometry(head, features):
    """Cosines as nested lists, and norms, of float64 tensors."""
    norms = [math.sqrt(sum(x * x for x in row)) for row in features.tolist()]
    weights = head.weight.tolist()
    lengths = [math.sqrt(sum(w * w for w in row)) for row in weights]
    cosines = [
        [sum(map(float.__mul__, x, w)) / (norm * length) for w, length in zip(weights, lengths, strict=True)]
        for x, norm in zip(features.tolist(), norms, strict=True)
    ]
    return cosines, norms


def test_adaface_of_the_authors_limits_norms_and_cosines():
    head = build("adaface:form=authors", classes=4, features=6)
    labels = torch.tensor([0, 1, 2, 3, 0])
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    features *= torch.tensor([[80.0], [1e-5], [200.0], [30.0], [1.0]])
    features[4] = 150.0 * head.weight[0].detach()  # at the target: cosine 1
    cosines, norms = geometry(head, features)
    limited = [min(max(norm, 0.001), 100.0) for norm in norms]
    assert sum(a != b for a, b in zip(norms, limited, strict=True)) == 4
    mean = 0.99 * 20.0 + 0.01 * statistics.mean(limited)
    deviation = 0.99 * 100.0 + 0.01 * statistics.stdev(limited)
    expected = []
    for row, label, norm in zip(cosines, labels.tolist(), limited, strict=True):
        row = [min(max(value, -0.999), 0.999) for value in row]
        z = min(max((norm - mean) / (deviation + 1e-3) * 0.333, -1.0), 1.0)
        theta = min(max(math.acos(row[label]) - 0.4 * z, 1e-3), math.pi - 1e-3)
        row[label] = math.cos(theta) - (0.4 + 0.4 * z)
        expected.append([64.0 * value for value in row])
    found = head(features, labels).values
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-5
    )  # float32 buffers


def test_adaface_forms_differ_at_norms_near_200_and_agree_at_usual_ones():
    labels, features = (
        torch.arange(4),
        torch.randn(4, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64),
    )
    features = features / features.norm(dim=1, keepdim=True)
    losses = {}
    for form in ("paper", "authors"):
        for norm in (20.0, 200.0):
            head = build(f"adaface:form={form}", classes=4, features=6)
            losses[form, norm] = cross_entropy(head(norm * features, labels)).mean().item()
    assert losses["paper", 20.0] == pytest.approx(losses["authors", 20.0])
    assert abs(losses["paper", 200.0] - losses["authors", 200.0]) > 0.1


@pytest.mark.parametrize(
    ("text", "scale"),
    [("adacos", 2**0.5), ("adacos:form=reference", 4 / math.pi), ("adacos:form=reference,dynamic=false", 2**0.5)],
)
def test_the_first_scale_of_adacos(text, scale):
    head = build(text, classes=31, features=16)
    first = scale * math.log(30)
    assert head.margin.scale.item() == pytest.approx(first)
    labels = torch.arange(31)
    features = torch.randn(31, 16, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    cosines, _ = geometry(head, features)
    if "false" not in text:  # adapted before the logits of the first step, as by the reference
        sums = [math.exp(first * c) for i, row in enumerate(cosines) for k, c in enumerate(row) if k != i]
        median = statistics.median_low([math.acos(row[i]) for i, row in enumerate(cosines)])
        first = math.log(sum(sums) / 31) / math.cos(min(math.pi / 4, median))
    found = head(features, labels).values
    torch.testing.assert_close(found, first * torch.tensor(cosines, dtype=torch.float64), rtol=1e-6, atol=1e-6)


def test_svsoftmax_of_the_reference_has_no_margin_and_its_own_scale():
    head = build("svsoftmax:form=reference", classes=31, features=16)
    scale, labels = math.sqrt(2) * math.log(30), torch.arange(31)
    features = head.weight.detach() + torch.randn(
        31, 16, generator=torch.Generator().manual_seed(4), dtype=torch.float64
    )
    cosines, _ = geometry(head, features)
    expected = [[scale * (c + 0.2 * (c + 1) if c > row[i] else c) for c in row] for i, row in enumerate(cosines)]
    assert 0 < sum(c > row[i] for i, row in enumerate(cosines) for c in row) < 31 * 30
    torch.testing.assert_close(
        head(features, labels).values, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-6
    )
    assert str(head.options) == "svsoftmax:t=1.2,form=reference,sample=1.0,sampling=lrfr,seed=0"
    assert HEADS.parse(str(head.options)) == head.options


def test_asoftmax_goes_on_with_the_lambda_of_its_checkpoint():
    """Versions that counted from 0 saved the number of the next step, too."""
    head = build("asoftmax", classes=5, features=6)
    head.load_full_state({**head.full_state(), "margin.iteration": torch.tensor(7)})
    features = head.weight[:1].detach() * 2  # at the target: psi = cos = 1, whatever lambda is
    features[0, 0] += 1
    cosines, norms = geometry(head, features)
    c, weight = cosines[0][0], 1000 / (1 + 0.12 * 7)
    psi = 8 * c**4 - 8 * c**2 + 1
    assert math.acos(c) < math.pi / 4
    found = head(features, torch.tensor([0])).values[0, 0].item()
    assert found == pytest.approx(norms[0] * (weight * c + psi) / (1 + weight), rel=1e-9)
    assert int(head.margin.iteration) == 8


@pytest.mark.parametrize(("rows", "length"), [("reference", 13.06), ("adaface", 1.0), ("insightface", 0.226)])
def test_the_initial_length_of_class_rows(rows, length):
    torch.manual_seed(1)
    weight = HEADS.parse("arcface").build(features=512, classes=200, rows=rows).weight.detach()
    lengths = weight.norm(dim=1)
    assert lengths.mean().item() == pytest.approx(length, rel=0.01)
    assert lengths.std() < 0.05 * length
    torch.manual_seed(1)
    drawn = torch.empty(200, 512)
    drawn = drawn.normal_(0, 0.01) if rows == "insightface" else drawn.uniform_(-1, 1)
    torch.testing.assert_close(weight, drawn if rows != "adaface" else drawn / drawn.norm(dim=1, keepdim=True))
    config = TrainConfig(backbone="spherenet4", class_rows=rows)
    head = Learner(config, classes=200, preprocessing=Preprocessing(size=32)).head
    assert head.weight.norm(dim=1).mean().item() == pytest.approx(length, rel=0.01)
    assert set(get_args(ClassRows)) == set(INITIAL_ROWS)


def test_positives_count_within_the_rate_of_insightface():
    labels = torch.arange(128).repeat(4) * 70
    ours = sample_classes(labels, 9131, 0.1, seed=0, draw=0)
    theirs = sample_classes(labels, 9131, 0.1, seed=0, draw=0, sampling="insightface")
    assert (len(ours), len(theirs)) == (1028, 913)
    assert set(labels.tolist()) <= set(theirs.tolist()) <= set(ours.tolist())
    crowded = sample_classes(labels, 9131, 0.01, seed=0, draw=0, sampling="insightface")
    assert crowded.tolist() == sorted({*labels.tolist()})  # more positives than the rate: no others


def test_a_head_samples_as_its_option_says():
    for sampling, columns in (("lrfr", 1 + 4), ("insightface", 4)):
        head = build(f"arcface:sample=0.4,sampling={sampling}", classes=11, features=6)
        scores = head(torch.ones(1, 6, dtype=torch.float64), torch.tensor([3]))
        assert scores.values.shape == (1, columns)


@pytest.mark.parametrize("name", HEADS)
def test_the_help_of_an_option_explains_each_of_its_words(name):
    for option, declared in HEADS[name].declared().items():
        assert all(word in declared.help for word in declared.choices), option
