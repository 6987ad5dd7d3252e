"""Resumed runs are bit-equal to uninterrupted ones, with all settings; every setting changes the training."""

from __future__ import annotations

import itertools

import pytest
import torch

from model.formats.checkpoint import checkpoint_path, checkpoints, read_checkpoint, save_checkpoint
from model.formats.network import load_network
from model.training.averages import averaged_decay
from model.training.config import TrainConfig
from model.training.start import find_resume, start_run
from model.training.state import new_run
from pipeline.spec import Preprocessing
from tests.model.training.runs import CLASSES, SPEC, config, losses, run_training

OPTIMIZERS = ["sgd", "sgd:nesterov=true", "adamw"]
SCHEDULES = ["step", "cosine:warmup=0.3", "constant"]
COMBINATIONS = [*itertools.product(OPTIMIZERS, SCHEDULES, [0.0, 0.9])]


def assert_resumes(folder, **changes):
    """Compares losses, weights and optimizer of a run resumed after step 3 of 6 with an uninterrupted run."""
    settings = config(**{"steps": 6, "lr": 0.01, "save_every": 3, "keep": 9, **changes})
    run_training(folder / "whole", settings)
    (folder / "cut" / "checkpoints").mkdir(parents=True)
    for name in ("0000003.pt",):
        data = (folder / "whole" / "checkpoints" / name).read_bytes()
        (folder / "cut" / "checkpoints" / name).write_bytes(data)
    run_training(folder / "cut", settings, resume=checkpoint_path(folder / "cut", 3))
    whole, cut = (read_checkpoint(checkpoint_path(folder / name, 6)) for name in ("whole", "cut"))
    assert losses(folder / "cut") == {step: losses(folder / "whole")[step] for step in (4, 5, 6)}
    compared = [*_tensors(whole)]
    assert len(compared) > 20
    for (name, value), (other_name, other) in zip(compared, _tensors(cut), strict=True):
        assert name == other_name
        assert torch.equal(value, other), name


def _tensors(content, prefix=""):
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _tensors(value, f"{prefix}{name}/")
        elif isinstance(value, torch.Tensor):
            yield f"{prefix}{name}", value


@pytest.mark.parametrize(("optimizer", "schedule", "ema"), COMBINATIONS)
def test_every_optimizer_schedule_and_average_resumes_exactly(tmp_path, optimizer, schedule, ema):
    assert_resumes(tmp_path, optimizer=optimizer, schedule=schedule, ema=ema)


@pytest.mark.parametrize(
    "changes",
    [
        {"head": "adaface"},
        {"head": "adacos"},
        {"head": "asoftmax"},
        {"head": "softmax:sample=0.5"},
        {"losses": "focal+octuplet+center"},
        {"backbone": "spherenet4:dropout=0.5"},
        pytest.param({"backbone": "mobilefacenet", "ema": 0.5}, marks=pytest.mark.heavy),
        {"precision": "bf16"},
        {"precision": "fp16", "clip_norm": 1.0, "accumulate": 3, "activation_checkpointing": True},
        {"init": "data"},
    ],
    ids=lambda changes: next(iter(changes.values())),
)
def test_everything_with_a_state_resumes_exactly(tmp_path, changes):
    assert_resumes(tmp_path, **changes)


EFFECTS = [
    {"backbone": "spherenet4:pooling=true"},
    {"backbone": "spherenet4:dropout=0.5"},
    {"init": "data"},
    {"head": "arcface"},
    {"class_rows": "adaface"},
    {"head": "amsoftmax:scale=20"},
    {"head": "amsoftmax:margin=0.1"},
    {"head": "amsoftmax:sample=0.5"},
    {"losses": "cross-entropy"},
    {"losses": "focal+hardest-triplet"},
    {"losses": "cross-entropy+octuplet"},
    {"losses": "cross-entropy+hardest-triplet:margin=0.5"},
    {"losses": "cross-entropy+hardest-triplet:weight=0.5"},
    {"losses": "cross-entropy+hardest-triplet+center"},
    {"optimizer": "adamw"},
    {"optimizer": "sgd:momentum=0.5"},
    {"lr": 0.02},
    {"weight_decay": 0.1},
    {"schedule": "cosine"},
    {"schedule": "step:at=0.9"},
    {"schedule": "step:warmup=0.5"},
    {"precision": "bf16"},
    {"clip_norm": 0.1},
    {"seed": 1},
    {"steps": 2},
]
_WATCHED = {"save_every", "keep", "log_every", "eval_every", "best"}  # test_train, test_evaluation
_ELSEWHERE = {"pretrained", "freeze", "triplets", "shard_head", "views", "degrade", "batch_size", "ema", "compile"} | {
    "accumulate",  # test_update
    "activation_checkpointing",
    "max_skipped",
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    run_training(folder, config(steps=3, lr=0.01))
    return losses(folder)


@pytest.mark.parametrize("changes", EFFECTS, ids=lambda changes: "-".join(map(str, *changes.items())))
def test_every_setting_changes_the_training(tmp_path, plain, changes):
    run_training(tmp_path, config(**{"steps": 3, "lr": 0.01, **changes}))
    assert losses(tmp_path) != plain


def test_every_setting_has_a_test_of_its_effect():
    tested = {name for changes in EFFECTS for name in changes}
    assert tested | _WATCHED | _ELSEWHERE == set(TrainConfig().to_dict())


def test_averaged_weights_are_the_average_and_are_evaluated(tmp_path):
    seen = []

    def evaluate(backbone):
        seen.append({name: value.clone() for name, value in backbone.state_dict().items()})
        return {"a": 1.0}

    settings = config(steps=4, lr=0.01, ema=0.7, save_every=1, keep=9, eval_every=1)
    run_training(tmp_path, settings, evaluate=evaluate)
    states = [read_checkpoint(checkpoint_path(tmp_path, step)) for step in (1, 2, 3, 4)]
    expected = states[0]["backbone_state"]
    for state, decay, evaluated in zip(states, [0, 2 / 11, 3 / 12, 4 / 13], seen[1:], strict=True):
        for name, value in state["backbone_state"].items():
            expected = {**expected, name: decay * expected[name] + (1 - decay) * value}
        for name, value in expected.items():
            torch.testing.assert_close(state["averaged_state"][name], value)
            assert torch.equal(evaluated[name], state["averaged_state"][name])
    loaded = load_network(checkpoint_path(tmp_path, 4)).backbone.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in states[-1]["averaged_state"].items())


def test_the_average_of_a_short_run_has_left_the_random_start(tmp_path):
    settings = config(steps=12, lr=0.01, ema=0.9995, save_every=12, schedule="constant")
    start = new_run(settings, classes=CLASSES, preprocessing=SPEC).learner.backbone.state_dict()
    run_training(tmp_path, settings)
    end = read_checkpoint(checkpoint_path(tmp_path, 12))

    def distance(weights):
        pairs = zip(end["averaged_state"].values(), weights.values(), strict=True)
        return sum((average - value).square().sum() for average, value in pairs).sqrt()

    assert distance(end["backbone_state"]) < 0.5 * distance(start)


def test_the_decay_rises_to_the_setting_and_stays():
    assert [averaged_decay(0.9, updates) for updates in (0, 1, 8)] == pytest.approx([0.1, 2 / 11, 0.5])
    assert averaged_decay(0.9995, 17_000) < 0.9995 == averaged_decay(0.9995, 18_000) == averaged_decay(0.9995, 10**9)
    assert averaged_decay(0.05, 0) == 0.05


def test_a_checkpoint_of_an_average_with_a_constant_decay_resumes(tmp_path):
    """Earlier versions wrote the same fields: the average continues from their values."""
    run_training(tmp_path, config(steps=3, ema=0.9, save_every=3))
    path = checkpoint_path(tmp_path, 3)
    content = read_checkpoint(path)
    content["averaged_state"] = {name: torch.zeros_like(value) for name, value in content["averaged_state"].items()}
    save_checkpoint(path, content)
    run_training(tmp_path, config(steps=4, ema=0.9), resume=path)
    after = read_checkpoint(checkpoint_path(tmp_path, 4))
    for name, value in after["averaged_state"].items():
        torch.testing.assert_close(value, (1 - 4 / 13) * after["backbone_state"][name])


@pytest.mark.heavy
def test_a_compiled_network_has_the_same_losses(tmp_path, plain):
    run_training(tmp_path, config(steps=3, lr=0.01, compile=True))
    assert losses(tmp_path) == pytest.approx(plain, rel=1e-3)


def test_a_run_folder_may_be_a_string(tmp_path):
    folder = str(tmp_path / "run")
    assert run_training(folder, config(steps=2))[0] == 2
    spec = Preprocessing(**SPEC)
    ranks = new_run(config(steps=3), classes=CLASSES, preprocessing=SPEC).ranks
    start = start_run(
        config(steps=3), run=folder, resume="auto", classes=CLASSES, shards_spec=spec, device="cpu", ranks=ranks
    )
    assert start.step == 2
    assert find_resume(folder, "auto") == checkpoints(folder)[-1] == checkpoint_path(tmp_path / "run", 2)
