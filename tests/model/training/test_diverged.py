"""A run that diverges keeps the state of the last finite step, and says how to continue."""

from __future__ import annotations

import pytest
import torch

from model.errors import CheckpointError
from model.finite import all_finite
from model.formats.checkpoint import checkpoint_path, checkpoints, read_checkpoint, save_checkpoint
from model.formats.network import load_network
from model.training.config import TrainingError
from model.training.loop import train
from model.training.state import new_run
from tests.model.training.runs import CLASSES, SPEC, Stream, config, run_training

SMALL_BATCH_NORM = {"backbone": "mobilefacenet", "schedule": "constant", "batch_size": 3, "lr": 1e-3, "ema": 0.9}


def tensors(content):
    for value in content.values():
        if isinstance(value, dict):
            yield from tensors(value)
        elif isinstance(value, torch.Tensor):
            yield value


def diverge(run, settings, at, value=float("nan"), **stream):
    """Trains with a gradient of the first weight that is ``value`` in step ``at``; returns the error's message."""
    state = new_run(settings, classes=CLASSES, preprocessing=SPEC)
    batches = Stream(**stream)
    weight = next(state.learner.backbone.parameters())
    weight.register_hook(lambda gradient: gradient + value if batches.number == at else gradient)
    with pytest.raises(TrainingError) as error:
        train(batches, state, run)
    return str(error.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_all_finite_finds_one_value(value):
    good = [torch.zeros(3), torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last), torch.tensor(7)]
    assert all_finite([*good, torch.zeros(0)])
    for tensor in good[:2]:
        bad = tensor.clone()
        bad[(-1,) * bad.dim()] = value
        assert not all_finite([*good, bad])
        assert not all_finite([bad.to(torch.bfloat16)])
    assert all_finite([torch.tensor(3e38), torch.tensor(1e300, dtype=torch.float64)])


def test_a_non_finite_loss_stops_before_the_update(tmp_path):
    with pytest.raises(TrainingError) as error:
        run_training(tmp_path, config(), poison=4)
    newest = checkpoints(tmp_path)[-1]
    assert str(error.value) == (
        f"the loss of step 5 is nan, no update was made; add --resume {newest} --out NEW --lr 0.005 (it is 0.05)"
        " to go on from step 4 with a lower rate"
    )
    assert newest.name == "0000004.pt"
    assert all_finite(tensors(read_checkpoint(newest)))


def test_a_non_finite_loss_in_the_first_step_saves_nothing(tmp_path):
    with pytest.raises(TrainingError) as error:
        run_training(tmp_path, config(), poison=0)
    assert str(error.value) == (
        "the loss of step 1 is nan, no update was made; start over with a lower --lr (it is 0.05)"
    )
    assert checkpoints(tmp_path) == []


def test_batch_statistics_are_those_before_the_loss_that_was_not_finite(tmp_path):
    with pytest.raises(TrainingError, match="the loss of step 3 is nan"):
        run_training(tmp_path / "diverged", config(**SMALL_BATCH_NORM, head="asoftmax"), poison=2)
    run_training(tmp_path / "short", config(**SMALL_BATCH_NORM, head="asoftmax", save_every=2, steps=3, keep=9))
    ours, expected = (read_checkpoint(checkpoint_path(tmp_path / name, 2)) for name in ("diverged", "short"))
    assert all_finite(tensors(ours))
    for part in ("backbone_state", "averaged_state", "head_state"):
        assert ours[part].keys() == expected[part].keys()
        assert all(torch.equal(value, expected[part][name]) for name, value in ours[part].items())
    assert int(ours["backbone_state"]["1.num_batches_tracked"]) == 2
    assert int(ours["head_state"]["margin.iteration"]) == 3  # of the next step
    assert torch.isfinite(
        load_network(checkpoint_path(tmp_path / "diverged", 2)).backbone(torch.zeros(1, 3, 32, 32))
    ).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_stops_before_the_update(tmp_path, value):
    message = diverge(tmp_path, config(save_every=2, keep=1), at=4, value=value)
    assert message.startswith("a gradient of step 4 is not finite, no update was made; add --resume ")
    (kept,) = checkpoints(tmp_path)
    assert kept.name == "0000003.pt"
    assert all_finite(tensors(read_checkpoint(kept)))
    run_training(tmp_path / "whole", config(save_every=3, keep=9))
    expected = read_checkpoint(checkpoint_path(tmp_path / "whole", 3))
    for name, weight in read_checkpoint(kept)["backbone_state"].items():
        assert torch.equal(weight, expected["backbone_state"][name])


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    """The update itself may overflow."""
    state = new_run(config(steps=4, save_every=2, keep=1), classes=CLASSES, preprocessing=SPEC)

    def overflow():
        next(state.learner.backbone.parameters()).data.mul_(float("inf"))

    step = state.optimizer.step
    updates = []

    def update():
        step()
        updates.append(1)
        if len(updates) == 4:
            overflow()

    state.optimizer.step = update
    with pytest.raises(TrainingError, match="a weight is not finite after step 4: it is not saved; add --resume "):
        train(Stream(), state, tmp_path)
    (kept,) = checkpoints(tmp_path)
    assert kept.name == "0000002.pt"
    assert all_finite(tensors(read_checkpoint(kept)))


def test_a_checkpoint_that_is_not_finite_is_neither_resumed_nor_scored(tmp_path):
    """Earlier versions wrote some."""
    run_training(tmp_path, config(steps=3))
    path = checkpoints(tmp_path)[-1]
    content = read_checkpoint(path)
    content["backbone_state"]["0.weight"][0, 0, 0, 0] = float("nan")
    save_checkpoint(path, content)
    with pytest.raises(TrainingError, match=r"0000003\.pt: a weight is not finite; delete it to use the previous"):
        run_training(tmp_path, config(steps=5), resume=path)
    with pytest.raises(CheckpointError, match=r"1 tensor not finite, such as 0\.weight; use an earlier checkpoint"):
        load_network(path)
