"""Attention transfer: which maps are compared, with which teachers, and that it costs nothing elsewhere."""

from __future__ import annotations

import copy

import pytest
import torch

from model.backbones.stages import stages
from model.options import OptionError
from model.training.learner import StepInputs
from model.training.state import new_run
from model.training.update import Updater
from tests.model.training.runs import CLASSES, SPEC, Stream, config, lent, losses, run_training

ATTENTIVE = {"losses": "cross-entropy+distill:form=attention,weight=40", "teacher": "a.pt"}


def start(teacher, **changes):
    return new_run(config(**{**ATTENTIVE, **changes}), classes=CLASSES, preprocessing=SPEC, teacher=teacher)


@pytest.mark.parametrize("backbone", ["spherenet4", "mobilefacenet", "vit_small"])
def test_the_ends_of_all_stages_are_compared_on_the_images_before_their_degradation(backbone):
    teacher = lent(backbone)
    learner = start(teacher, backbone=backbone).learner.eval()
    batch = next(Stream())
    features, distances = learner.features(batch.images, batch.originals)
    torch.testing.assert_close(features, learner.features(batch.images)[0])

    def ends(network, images):
        """The images pass the backbone's layers one after another, as ``stages`` groups them."""
        found, handles = [], []
        for stage in stages(network, 32):
            handles.append(stage[-1].register_forward_hook(lambda *words: found.append(words[2])))
        with torch.no_grad():
            network(images.flatten(0, 1).permute(0, 3, 1, 2).float() / 127.5 - 1)
        for handle in handles:
            handle.remove()
        return [value.square().sum(1 if value.dim() == 4 else 2).flatten(1) for value in found]

    pairs = list(
        zip(ends(learner.backbone, batch.images), ends(teacher.network.backbone, batch.originals), strict=True)
    )
    assert len(pairs) >= 3
    expected = sum(1 - torch.nn.functional.cosine_similarity(ours, theirs) for ours, theirs in pairs) / len(pairs)
    torch.testing.assert_close(distances, expected, rtol=1e-4, atol=1e-5)


def test_a_run_logs_each_view_and_the_teacher_stays_as_it_was(tmp_path):
    done, learner = run_training(tmp_path, config(**ATTENTIVE, steps=2))
    assert done == 2
    text = (tmp_path / "metrics.jsonl").read_text()
    assert all(f'"distill-attention@{size}"' in text for size in (128, 8, 12, 16))
    names = [name for name, _ in learner.named_parameters()]
    assert {name.partition(".")[0] for name in names} == {
        "backbone",
        "head",
    }  # nothing of the teacher is trained or saved
    teacher, before = lent(), lent()
    state = start(teacher)
    batch = next(Stream())
    state.learner.train()
    Updater(state)(StepInputs(batch.images, batch.labels, None, batch.originals), 0, lr=0.1, check=True)
    assert not teacher.network.backbone.training
    for name, value in teacher.network.backbone.state_dict().items():
        assert torch.equal(value, before.network.backbone.state_dict()[name])
    assert all(weight.grad is None for weight in teacher.network.backbone.parameters())


def test_the_student_learns_to_look_where_the_teacher_looks(tmp_path):
    terms = "distill:weight=0+distill:form=attention,weight=100"
    run_training(tmp_path, config(losses=terms, teacher="a", lr=0.01, steps=20, schedule="cosine"))
    found = list(losses(tmp_path).values())
    assert sum(found[-3:]) < 0.85 * sum(found[:3])


@pytest.mark.parametrize("change", [{"activation_checkpointing": True}, {"accumulate": 3}])
def test_less_memory_gives_the_same_gradients(change):
    def gradients(**changes):
        state = start(lent(), **changes)
        batch = next(Stream())
        state.learner.train()
        done = Updater(state)(StepInputs(batch.images, batch.labels, None, batch.originals), 0, lr=0.1, check=True)
        return done, {name: weight.grad for name, weight in state.learner.named_parameters()}

    whole, other = gradients(), gradients(**change)
    torch.testing.assert_close(other[0].loss.detach(), whole[0].loss.detach())
    for name, value in whole[1].items():
        torch.testing.assert_close(other[1][name], value, rtol=1e-4, atol=1e-5)


def test_hooks_last_for_a_forward_pass_only():
    learner = start(lent(), ema=0.9).learner
    batch = next(Stream())
    learner.features(batch.images, batch.originals)
    assert not any(module._forward_hooks for module in learner.modules())
    copy.deepcopy(learner.backbone)


@pytest.mark.parametrize(
    ("teacher", "changes", "says"),
    [
        (lambda: lent(size=48), {}, "compares places in an image, but the teacher has size 48, not 32"),
        (lambda: lent(template="arcface"), {}, "but the teacher has template arcface, not seed"),
        (lambda: lent(), {"backbone": "vit_small"}, "tokens"),
        (lambda: None, {}, "those of the teacher None are not known here; name a network with weights"),
    ],
)
def test_a_teacher_with_other_maps_is_one_line(teacher, changes, says):
    with pytest.raises(OptionError, match="losses distill:form=attention compares") as error:
        start(teacher(), **changes)
    assert says in str(error.value)


def test_teachers_of_another_colour_order_and_range_see_their_own_inputs():
    plain, other = start(lent()), start(lent(color="BGR", mean=0.2, std=0.7))
    batch = next(Stream())
    distances = [state.learner.eval().features(batch.images, batch.originals)[1] for state in (plain, other)]
    assert not torch.allclose(*distances)
