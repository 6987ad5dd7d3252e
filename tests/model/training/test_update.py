"""Batches in parts, activation checkpointing, clipping, skipped steps and the loss scale of fp16."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from model.backbones import build_backbone
from model.formats.checkpoint import checkpoints, read_checkpoint
from model.options import OptionError
from model.training.config import TrainingError
from model.training.guard import FIRST_SCALE, GROWTH_STEPS, MAX_SCALE, Guard
from model.training.learner import StepInputs
from model.training.loop import train
from model.training.ranks import Ranks
from model.training.recompute import blocks, recomputed
from model.training.state import new_run
from model.training.update import Updater, gradient_norm
from tests.model.training.runs import CLASSES, SPEC, Stream, config, lent, losses, run_training, teach
from tests.networks import by_family

LOSSES = [
    "cross-entropy+hardest-triplet",
    "focal+octuplet+center",
    "cross-entropy+distill:weight=3+distill:form=relational,weight=2+distill:form=attention,weight=5",
]


def gradients(settings, steps=1, loss_scale=1.0):
    """The run after some updates: its losses by name, gradients by name, and state dict."""
    teacher = lent() if settings.losses.distill else None
    state = new_run(settings, classes=CLASSES, preprocessing=SPEC, teacher=teacher)
    state.guard.scale = loss_scale
    update, stream = Updater(state), Stream()
    for step in range(steps):
        batch = next(stream)
        targets = teach(batch.rows) if settings.losses.distill else None
        originals = batch.originals if settings.losses.attention else None
        done = update(
            StepInputs(batch.images, batch.labels, targets, originals), step, lr=state.learner.config.lr, check=True
        )
    parts = {"loss": done.loss.detach(), **done.parts}
    grads = {name: weight.grad for name, weight in state.learner.named_parameters()}
    return parts, grads, state.learner.state_dict()


def assert_close(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-4, atol=1e-6 * float(theirs[name].abs().max() + 1))


@pytest.mark.parametrize("terms", LOSSES)
@pytest.mark.parametrize("parts", [2, 3])
def test_a_batch_in_parts_has_the_losses_gradients_and_updates_of_the_whole(terms, parts):
    settings = config(losses=terms, lr=1e-3, teacher="a" if "distill" in terms else None)
    whole = gradients(settings, steps=2)
    split = gradients(dataclasses.replace(settings, accumulate=parts), steps=2)
    for ours, theirs in zip(split, whole, strict=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_norm_of_a_sharded_head_that_no_loss_trains_is_on_the_device(monkeypatch, device):
    """NCCL takes no tensor of the CPU, where PyTorch has the norm of nothing."""
    learner = torch.nn.ModuleDict({"backbone": torch.nn.Linear(2, 1, device=device), "head": torch.nn.Linear(2, 1)})
    learner.rank_local_prefixes = ("head.",)
    learner.backbone.weight.grad = torch.tensor([[3.0, 4.0]]).to(device)
    places = []
    monkeypatch.setattr(Ranks, "mean", lambda _, value: places.append(value.device.type) or value)
    norm = gradient_norm(learner, Ranks())
    assert {norm.device.type, *places} == {device}
    assert device == "meta" or norm == 5


def test_batch_statistics_move_once_in_each_part():
    _, _, state = gradients(config(backbone="mobilefacenet", accumulate=3))
    assert int(state["backbone.1.num_batches_tracked"]) == 3


def test_dropout_of_a_part_is_the_same_both_times(monkeypatch):
    seen = []
    dropout = torch.nn.functional.dropout

    def watched(*words, **options):
        seen.append(dropout(*words, **options))
        return seen[-1]

    monkeypatch.setattr(torch.nn.functional, "dropout", watched)
    gradients(config(backbone="spherenet4:dropout=0.5", accumulate=3))
    first, again = seen[:3], seen[3:]
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[1])


def test_more_parts_than_identities_are_refused():
    with pytest.raises(OptionError, match="accumulate is 4 for 3 identities: a part needs one image at least"):
        config(accumulate=4)
    with pytest.raises(OptionError, match="a part needs two images at least"):
        config(backbone="mobilefacenet", views="128", losses="cross-entropy", accumulate=3)


@pytest.mark.parametrize("name", ["spherenet10", "ir18", "mobilefacenet", "vit_small"])
def test_recomputed_blocks_have_the_same_outputs_gradients_and_statistics(name):
    torch.manual_seed(0)
    plain = build_backbone(name, image_size=32).train()
    ours = copy.deepcopy(plain)
    found = []
    for network, enabled in ((plain, False), (ours, True)):
        torch.manual_seed(1)  # of dropout
        with recomputed(network, enabled):
            out = network(torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(2)))
        out.square().sum().backward()
        found.append([out, *(weight.grad for weight in network.parameters()), *network.buffers()])
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))
    assert not any("forward" in vars(module) for module in ours.modules())


def saved_bytes(network, enabled):
    """The activations that a forward pass keeps for the backward pass."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = {weight.untyped_storage().data_ptr() for weight in network.parameters()}
    images = torch.rand(4, 3, 32, 32)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), recomputed(network, enabled):
        out = network(images)
    assert out.requires_grad
    return sum(size for pointer, size in kept.items() if pointer not in weights)


@pytest.mark.parametrize("name", by_family())
def test_every_backbone_has_blocks(name):
    with torch.device("meta"):
        network = build_backbone(name)
    assert bool(blocks(network)) == (name != "spherenet4")  # which has plain layers only


def test_recomputed_blocks_keep_less():
    network = build_backbone("ir18", image_size=32).train()
    assert saved_bytes(network, enabled=True) < 0.5 * saved_bytes(network, enabled=False)


def test_activation_checkpointing_changes_no_loss_and_goes_with_parts(tmp_path):
    common = {"backbone": "spherenet10", "steps": 2, "accumulate": 2}
    run_training(tmp_path / "plain", config(**common))
    run_training(tmp_path / "ours", config(**common, activation_checkpointing=True))
    assert losses(tmp_path / "ours") == losses(tmp_path / "plain")
    with pytest.raises(OptionError, match="exclude each other"):
        config(activation_checkpointing=True, compile=True)


def length_of(grads):
    return float(torch.cat([gradient.flatten().double() for gradient in grads.values()]).norm())


def test_a_long_gradient_is_clipped_and_a_short_one_is_not():
    parts, whole, _ = gradients(config())
    assert "gradient_norm" not in parts
    parts, clipped, _ = gradients(config(clip_norm=0.1))
    assert float(parts["gradient_norm"]) == pytest.approx(length_of(whole), rel=1e-3)
    assert length_of(clipped) == pytest.approx(0.1, rel=1e-3)
    _, same, _ = gradients(config(clip_norm=1e6))
    assert all(torch.equal(value, whole[name]) for name, value in same.items())


def test_a_step_that_is_not_finite_is_skipped_and_counted(tmp_path, capsys):
    settings = config(backbone="mobilefacenet", lr=1e-3, max_skipped=1, save_every=2, keep=9, ema=0.9)
    done, _ = run_training(tmp_path, settings, poison=2)
    assert done == 8
    assert "the loss of step 3 is nan, no update was made (skipped, 1 of 1)\n" in capsys.readouterr().err
    assert sorted(losses(tmp_path)) == [1, 2, 4, 5, 6, 7, 8]
    before, after = (read_checkpoint(path) for path in checkpoints(tmp_path)[:2])
    assert (before["guard_state"]["skipped"], after["guard_state"]["skipped"]) == (0, 1)
    assert int(after["backbone_state"]["1.num_batches_tracked"]) == 3
    assert after["loader_state"] == {"step": 4}


def test_one_more_than_may_be_skipped_ends_the_run_also_after_a_resume(tmp_path):
    settings = config(max_skipped=1, save_every=1)
    run_training(tmp_path, config(max_skipped=1, save_every=1, steps=4), poison=2)
    with pytest.raises(TrainingError, match="the loss of step 6 is nan, no update was made; add --resume "):
        run_training(tmp_path, settings, resume=checkpoints(tmp_path)[-1], poison=5)


def test_fp16_has_nearly_the_gradients_of_fp32_and_halves_a_scale_that_is_too_high(tmp_path, capsys):
    _, half, _ = gradients(config(precision="fp16"), loss_scale=256.0)
    _, whole, _ = gradients(config())
    for name, value in half.items():
        assert torch.cosine_similarity(value.flatten(), whole[name].flatten(), dim=0) > 0.99, name
    state = new_run(config(precision="fp16", steps=3), classes=CLASSES, preprocessing=SPEC)
    state.guard.scale = 64.0
    weight = next(state.learner.backbone.parameters())
    weight.register_hook(lambda gradient: gradient * (float("inf") if state.guard.scale > 32 else 1))
    assert train(Stream(), state, tmp_path) == 3
    assert "a gradient of step 1 is not finite, no update was made (loss scale 32)" in capsys.readouterr().err
    assert state.guard.scale == 32
    assert read_checkpoint(checkpoints(tmp_path)[-1])["guard_state"] == {
        "scale": 32.0,
        "good_steps": 2,
        "skipped": 0,
    }


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        (
            {"precision": "fp16"},
            "choose a higher --steps, as fp16 first looks for its loss scale (8), or --precision bf16",
        ),
        ({"max_skipped": 9}, "use a lower --lr"),
    ],
)
def test_a_run_without_an_update_ends_with_an_error_and_one_with_few_says_so(changes, remedy, tmp_path, capsys):
    def trained(run, finite_from):
        state, batches = new_run(config(steps=3, **changes), classes=CLASSES, preprocessing=SPEC), Stream()
        state.guard.scale = 64.0 if "precision" in changes else 1.0
        weight = next(state.learner.backbone.parameters())
        weight.register_hook(lambda gradient: gradient * (1 if batches.number >= finite_from else float("inf")))
        return train(batches, state, run)

    why = "made no update: their loss or a gradient was not finite"
    with pytest.raises(TrainingError) as error:
        trained(tmp_path / "none", 9)
    assert str(error.value) == f"nothing was learnt: 3 of 3 steps {why}; {remedy}"
    assert trained(tmp_path / "one", 3) == 3
    assert f"\n2 of 3 steps {why}; {remedy.partition('(')[0]}" in capsys.readouterr().err
    assert trained(tmp_path / "all", 0) == 3
    assert why not in capsys.readouterr().err


def test_the_scale_doubles_after_many_finite_steps_and_has_bounds():
    guard = Guard(config(precision="fp16"))
    for _ in range(GROWTH_STEPS):
        guard.accept()
    assert guard.scale == 2 * FIRST_SCALE
    for _ in range(20 * GROWTH_STEPS):
        guard.accept()
    assert guard.scale == MAX_SCALE
    while guard.scale > 1:
        assert guard.forgive(loss_finite=True)
    assert guard.forgive(loss_finite=True) is None
    assert Guard(config(precision="fp16")).forgive(loss_finite=False) is None


@pytest.mark.parametrize("state", [{"scale": 1}, {"scale": float("nan"), "good_steps": 0, "skipped": 0}])
def test_an_invalid_state_is_refused(state):
    with pytest.raises((KeyError, ValueError)):
        Guard(config(precision="fp16")).load(state)
