"""Training: exact resume, settings, errors, and that it learns."""

from __future__ import annotations

import json
import os
import signal
from types import SimpleNamespace

import pytest
import torch

from model.formats.checkpoint import checkpoint_path, checkpoints, read_checkpoint, save_checkpoint
from model.options import OptionError
from model.training.config import TrainConfig, TrainingError
from model.training.loop import train
from model.training.state import new_run
from pipeline.load.sampler import LoaderState
from tests.model.training.runs import CLASSES, SPEC, Stream, config, losses, run_training


@pytest.mark.parametrize("init", ["pytorch", "data"])
def test_a_resumed_run_has_the_losses_and_weights_of_an_uninterrupted_one(tmp_path, init):
    _, whole = run_training(tmp_path / "whole", config(init=init))
    run_training(
        tmp_path / "cut", config(init=init, steps=8), at_batch={4: lambda: os.kill(os.getpid(), signal.SIGTERM)}
    )
    newest = checkpoints(tmp_path / "cut")[-1]
    assert newest == checkpoint_path(tmp_path / "cut", 5)
    done, resumed = run_training(tmp_path / "cut", config(init=init), resume=newest)
    assert done == 8
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert len(losses(tmp_path / "cut")) == 8
    for ours, theirs in zip(resumed.state_dict().values(), whole.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_learning_rate_follows_the_milestones(tmp_path):
    run_training(tmp_path, config(steps=10))
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["lr"] for row in rows] == pytest.approx([0.05] * 4 + [0.005] * 2 + [0.0005] * 2 + [0.00005] * 2)
    reference = TrainConfig()
    assert [reference.learning_rate(step) for step in (0, 39_999, 40_000, 60_000, 80_000)] == pytest.approx(
        [0.1, 0.1, 0.01, 1e-3, 1e-4]
    )


def test_momentum_and_weight_decay_reach_every_parameter():
    state = new_run(config(optimizer="sgd:momentum=0.8", weight_decay=0.01), classes=CLASSES, preprocessing=SPEC)
    (group,) = state.optimizer.param_groups
    assert (group["momentum"], group["weight_decay"]) == (0.8, 0.01)
    assert len(group["params"]) == len(list(state.learner.parameters()))


def test_steps_and_logging_may_change_on_resume(tmp_path):
    run_training(tmp_path, config(steps=3))
    changed = config(steps=5, log_every=2, save_every=1, keep=9, eval_every=2, best="a")
    done, _ = run_training(tmp_path, changed, resume=checkpoints(tmp_path)[-1], evaluate=lambda backbone: {"a": 1.0})
    assert done == 5


def test_a_checkpoint_without_the_settings_of_evaluation_resumes(tmp_path):
    run_training(tmp_path, config(steps=3))
    path = checkpoints(tmp_path)[-1]
    content = read_checkpoint(path)
    for name in ("eval_every", "best"):
        del content["config"][name]
    save_checkpoint(path, content)
    assert run_training(tmp_path, config(steps=5), resume=path)[0] == 5


def test_resuming_on_other_shards_is_an_error(tmp_path):
    run_training(tmp_path, config(steps=3))
    path = checkpoints(tmp_path)[-1]
    content = read_checkpoint(path)
    other = new_run(config(), classes=CLASSES, preprocessing={**SPEC, "template": "arcface"})
    with pytest.raises(TrainingError, match="its preprocessing differs from the shards' in template"):
        other.restore(content, path)
    other = new_run(config(), classes=CLASSES + 1, preprocessing=SPEC)
    with pytest.raises(TrainingError, match="has 6 identities, the shards have 7"):
        other.restore(content, path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "train: steps is 0, expected a whole number at least 1"),
        ({"steps": 2.0}, r"train: steps is 2.0, expected a whole number at least 1"),
        ({"lr": float("inf")}, "lr is inf, expected a finite number above 0"),
        ({"lr": 10**400}, "lr is 1000.*, expected a finite number above 0"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0, expected a finite number at least 0"),
        ({"weight_decay": float("nan")}, "weight_decay is nan, expected a finite number at least 0"),
        ({"ema": 1.0}, "ema is 1.0, expected a finite number at least 0 and below 1"),
        ({"seed": 1 << 32}, "seed is 4294967296, expected a whole number at least 0 and at most 4294967295"),
        ({"compile": 1}, "compile is 1, expected true or false"),
        ({"best": 1}, "best is 1, expected text in quotes"),
        ({"head": 3}, "head is 3, expected text in quotes"),
        ({"stepps": 3}, "train has no option 'stepps'; did you mean steps?"),
        ({"freeze": 1}, "freeze is 1, but no weights are given to keep"),
        (
            {"pretrained": "a.pt", "init": "data"},
            "init data is for new weights, but --from a.pt gives weights: add --init pytorch",
        ),
        (
            {"pretrained": "a.pt", "init": "data", "backbone": "ir18"},
            "init data is for new weights, but --from a.pt gives weights: add --init pytorch",
        ),
        ({"precision": "fp8"}, "precision is 'fp8', expected one of fp32, bf16, fp16"),
        ({"log_every": 0}, "log_every is 0"),
        ({"eval_every": 0}, "eval_every is 0, expected a whole number at least 1"),
        ({"init": "magic"}, "init is 'magic', expected one of pytorch, data"),
        (
            {"init": "data", "backbone": "ir18"},
            "init data is for spherenets; ir18 has batch normalisation: choose pytorch",
        ),
    ],
)
def test_an_invalid_configuration_is_an_error(changes, message):
    with pytest.raises(OptionError, match=message):
        config(**changes)


def test_resuming_from_a_bare_state_dict_is_an_error(tmp_path):
    state = new_run(config(), classes=CLASSES, preprocessing=SPEC)
    with pytest.raises(TrainingError, match="a bare state dict, without optimizer and loader state"):
        state.restore(state.learner.backbone.state_dict(), tmp_path / "net.pth")


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    settings = config(save_every=2)
    state = new_run(settings, classes=CLASSES, preprocessing=SPEC)

    def ruin():
        with torch.no_grad():
            state.learner.backbone[0].weight.fill_(float("nan"))

    with pytest.raises(TrainingError, match="the loss of step 4 is nan"):
        train(Stream(at_batch={3: ruin}), state, tmp_path)
    assert [path.name for path in checkpoints(tmp_path)] == ["0000002.pt"]


def test_batches_of_another_size_than_the_config_states_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^a batch has 3 identities, expected 4, the batch_size of the config$"):
        run_training(tmp_path, config(batch_size=4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 2}, "batches are of a Loader with seed=1, expected seed=2, as the config says"),
        ({"order": "sequential"}, "batches are of a Loader with window=None, expected window=16, as the config says"),
    ],
)
def test_batches_that_a_loader_drew_with_other_settings_are_refused(changes, message, tmp_path):
    class Drawn(Stream):
        def __next__(self):
            batch = super().__next__()
            drawn = LoaderState(seed=1, global_batch=3, views=4, index_digest="0")
            return SimpleNamespace(**{**vars(batch), "state": drawn})

    def trained(**settings):
        settings = config(**{"steps": 1, "seed": 1, **settings})
        return train(Drawn(), new_run(settings, classes=CLASSES, preprocessing=SPEC), tmp_path)

    with pytest.raises(ValueError, match=f"^{message}$"):
        trained(**changes)
    assert trained() == 1


def test_training_on_one_identity_is_reported(tmp_path, capsys):
    class One(Stream):
        def __next__(self):
            batch = super().__next__()
            return SimpleNamespace(images=batch.images[:, :1], labels=batch.labels[:1] * 0, state=batch.state)

    for classes in (1, CLASSES):
        state = new_run(config(batch_size=1, steps=1), classes=classes, preprocessing=SPEC)
        train(One(), state, tmp_path / str(classes))
        told = "one identity: there are no others to tell it from, so nothing is learnt" in capsys.readouterr().err
        assert told == (classes == 1)


@pytest.mark.parametrize(
    ("losses", "views", "remarks"),
    [
        ("cross-entropy+octuplet", "32,8", []),
        (
            "cross-entropy+octuplet",
            "8-16,32",
            ["octuplet: its high resolution is the first view, 8-16 px; name the largest first"],
        ),
        ("cross-entropy+octuplet:form=authors", "32x2,8x2", []),
        (
            "cross-entropy+octuplet:form=authors",
            "32,8",
            ["octuplet: its authors' form has positives only among several images"],
        ),
        ("cross-entropy+octuplet", "32", ["one image of each identity: octuplet adds nothing to the loss"]),
        ("cross-entropy+hardest-triplet", "8,32", []),
        (
            "cross-entropy",
            "32",
            [
                "triplets rank: is the scope of a metric loss, and there is none",
                "class_rows adaface is for heads of cosines; softmax starts like a linear layer",
            ],
        ),
    ],
)
def test_surprising_settings_are_reported(losses, views, remarks):
    head = {"head": "softmax", "class_rows": "adaface", "triplets": "rank"} if losses == "cross-entropy" else {}
    found = new_run(config(losses=losses, views=views, **head), classes=CLASSES, preprocessing=SPEC).learner.remarks
    assert len(found) == len(remarks)
    assert all(ours.startswith(expected) for ours, expected in zip(found, remarks, strict=True))


def test_training_on_one_image_per_identity_skips_the_triplet_loss_with_a_message(tmp_path, capsys):
    class One(Stream):
        def __next__(self):
            batch = super().__next__()
            return SimpleNamespace(images=batch.images[:1], labels=batch.labels, state=batch.state)

    train(One(), new_run(config(views="32", steps=1), classes=CLASSES, preprocessing=SPEC), tmp_path)
    assert "one image of each identity: hardest-triplet adds nothing to the loss" in capsys.readouterr().err
    (row,) = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert row["loss"] == pytest.approx(row["ce@32"])
    assert "hardest-triplet" not in row


def test_training_learns(tmp_path):
    class Same(Stream):
        def __next__(self):
            self.number = 0
            return super().__next__()

    settings = config(steps=30, lr=0.01, init="data", schedule="constant")
    train(Same(), new_run(settings, classes=CLASSES, preprocessing=SPEC), tmp_path)
    curve = losses(tmp_path)
    assert curve[30] < 0.5 * curve[1]


def batch_of(images=(4, 3, 32, 32, 3), labels=(0, 1, 2)):
    return SimpleNamespace(images=torch.zeros(images, dtype=torch.uint8), labels=torch.tensor(labels), rows=None)


@pytest.mark.parametrize(
    ("batches", "error", "says"),
    [
        ("data/shards", TypeError, "batches is 'data/shards', expected batches, such as an open Loader"),
        ([1], TypeError, "images of a batch is None, expected a Tensor of uint8 and shape (V, b, S, S, 3), RGB"),
        ([batch_of(labels=(0, 1))], TypeError, "labels of a batch is a Tensor of int64 and shape (2,), expected"),
        ([batch_of((1, 3, 32, 32, 3))], ValueError, "a batch has 1 view of 32 px, expected 4 of 32 px, as the config"),
        ([batch_of((4, 3, 64, 64, 3))], ValueError, "a batch has 4 views of 64 px, expected 4 of 32 px, as the config"),
        ([batch_of(labels=(0, 1, 6))], ValueError, "labels of a batch are 0 to 6, expected 0 to 5: classes of the run"),
        ([], TrainingError, "batches ended after step 0 of 8, expected an endless stream"),
    ],
)
def test_batches_of_something_else_say_so(batches, error, says, tmp_path):
    with pytest.raises(error) as found:
        train(batches, new_run(config(), classes=CLASSES, preprocessing=SPEC), tmp_path)
    assert str(found.value).startswith(says)
