"""Which settings may change when a run resumes in its folder, and in a new one (a branch)."""

from __future__ import annotations

import json
import re

import pytest
import torch

from model.formats.checkpoint import checkpoint_path, checkpoints, read_checkpoint
from model.training.config import TrainConfig, TrainingError
from model.training.loop import train
from model.training.ranks import Ranks
from model.training.recipes import compose
from model.training.start import start_run
from pipeline.spec import Preprocessing
from tests.model.training.runs import CLASSES, SPEC, Stream, config, losses, run_training
from tests.processes import REPOSITORY

BRANCH = {"triplets", "degrade", "lr", "weight_decay", "schedule", "ema", "clip_norm", "precision"}
ALWAYS = {
    "accumulate",
    "activation_checkpointing",
    "class_rows",
    "teacher",
    "teacher_preprocessing",
    "max_skipped",
    "shard_head",
    "steps",
    "compile",
    "log_every",
    "save_every",
    "keep",
    "eval_every",
    "best",
}


def go_on(run, settings, resume="auto", **stream):
    """What the command does: starts or continues ``run``, and trains."""
    start = start_run(
        settings,
        run=run,
        resume=str(resume),
        classes=CLASSES,
        shards_spec=Preprocessing(**SPEC),
        device="cpu",
        ranks=Ranks(),
    )
    train(Stream(start.step, **stream), start.state, run, start=start.step)
    return start


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run of four steps with checkpoints after each."""
    run = tmp_path_factory.mktemp("first")
    run_training(run, config(steps=4, save_every=1, keep=9))
    return run


def test_the_settings_that_may_change_are_documented():
    changes = {name: declared.changes for name, declared in TrainConfig.declared().items()}
    assert {name for name in changes if changes[name] == "branch"} == BRANCH
    assert {name for name in changes if changes[name] == "always"} == ALWAYS
    section = (
        (REPOSITORY / "docs" / "guide" / "train.md")
        .read_text()
        .partition("## Stop and resume")[2]
        .partition("\n## ")[0]
    )
    documented = {name.replace("-", "_") for name in re.findall(r"`--([a-z-]+)`", section)}
    assert documented >= BRANCH | ALWAYS


def test_a_branch_with_a_lower_rate_goes_on_with_weights_momenta_and_data(first, tmp_path, capsys):
    branch, middle = tmp_path / "branch", checkpoint_path(first, 2)
    start = go_on(branch, config(steps=4, save_every=1, lr=0.01), middle)
    assert (start.step, start.loader_state) == (2, {"step": 2})
    assert f"branches off from step 2 of {middle}; lr 0.05 -> 0.01\n" in capsys.readouterr().err
    assert sorted(losses(branch)) == [3, 4]
    assert losses(branch)[3] == losses(first)[3]  # the same weights and images; the rate acts after it
    assert losses(branch)[4] != losses(first)[4]
    (group,) = start.state.optimizer.param_groups
    assert group["lr"] <= 0.01
    whole = read_checkpoint(middle)["optimiser_state"]["state"][0]["momentum_buffer"]
    assert whole.abs().max() > 0
    assert json.loads((branch / "config.json").read_text())["branched_from"] == str(middle)
    again = compose("modern", branch / "config.json", {})  # holds every setting, and more
    assert again.to_dict() == read_checkpoint(checkpoints(branch)[-1])["config"]
    assert [path.name for path in checkpoints(first)][-1] == "0000004.pt"


def test_a_branch_without_changes_is_the_run_itself(first, tmp_path):
    go_on(tmp_path / "branch", config(steps=4), checkpoint_path(first, 2))
    assert losses(tmp_path / "branch") == {step: losses(first)[step] for step in (3, 4)}


def test_the_same_command_continues_a_branch(first, tmp_path):
    branch, middle = tmp_path / "branch", checkpoint_path(first, 1)
    settings = config(steps=4, save_every=1, lr=0.01, keep=9)
    go_on(tmp_path / "whole", settings, middle)
    with pytest.raises(RuntimeError, match="killed"):
        go_on(branch, settings, middle, at_batch={2: lambda: (_ for _ in ()).throw(RuntimeError("killed"))})
    assert [path.name for path in checkpoints(branch)] == ["0000002.pt"]
    assert go_on(branch, settings, middle).step == 2
    assert losses(branch) == losses(tmp_path / "whole")
    assert json.loads((branch / "config.json").read_text())["branched_from"] == str(middle)
    assert go_on(branch, settings).step == 4  # also without --resume
    with pytest.raises(TrainingError, match="has a run up to step 4; choose another --out to continue from"):
        go_on(branch, settings, checkpoint_path(first, 3))


def test_a_checkpoint_under_the_name_of_another_step_is_not_the_newest(tmp_path):
    settings = config(steps=4)
    go_on(tmp_path, config(steps=2, save_every=1))
    checkpoint_path(tmp_path, 1).rename(checkpoint_path(tmp_path, 9))
    with pytest.raises(TrainingError, match=r"0000009\.pt: is the checkpoint of step 1: rename it to 0000001\.pt"):
        go_on(tmp_path, settings)


@pytest.mark.parametrize(
    "changes",
    [{"precision": "bf16"}, {"weight_decay": 0.1}, {"schedule": "cosine"}, {"ema": 0.9}, {"triplets": "rank"}],
    ids=lambda changes: next(iter(changes)),
)
def test_a_branch_may_change(first, tmp_path, changes):
    settings = config(steps=4, **changes)
    assert go_on(tmp_path / "branch", settings, checkpoint_path(first, 2)).step == 2
    with pytest.raises(TrainingError, match="branch off into a new folder: --resume CHECKPOINT --out NEW"):
        go_on(first, settings)


def test_a_branch_that_is_the_first_to_average_starts_with_the_weights_of_the_checkpoint(first, tmp_path):
    go_on(tmp_path / "branch", config(steps=3, ema=0.9), checkpoint_path(first, 2))
    before = read_checkpoint(checkpoint_path(first, 2))["backbone_state"]
    after = read_checkpoint(checkpoint_path(tmp_path / "branch", 3))
    decay = 3 / 12  # (1 + 2) / (10 + 2)
    for name, value in after["averaged_state"].items():
        torch.testing.assert_close(value, decay * before[name] + (1 - decay) * after["backbone_state"][name])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": 0.2}, "lr was 0.05 when this run started, now it is 0.2; to change it, branch off into a new folder"),
        ({"batch_size": 2}, "batch_size was 3 when this run started, now it is 2; choose another --out for a new run"),
        ({"degrade": "fast"}, "degrade was exact"),
        ({"head": "arcface"}, "head was amsoftmax:scale=30.0,margin=0.35"),
        ({"ema": 0.9}, "ema was 0.0"),
        ({"backbone": "spherenet10"}, "backbone was spherenet4"),
        ({"pretrained": "net.pt"}, "--from was None when this run started, now it is net.pt; choose another --out"),
    ],
)
def test_resuming_a_run_with_another_configuration_is_an_error(first, changes, message):
    with pytest.raises(TrainingError, match=re.escape(message)):
        go_on(first, config(steps=4, **changes))


@pytest.mark.parametrize("changes", [{"batch_size": 2}, {"head": "arcface"}, {"views": "32"}, {"seed": 1}])
def test_a_branch_keeps_what_determines_weights_and_data(first, tmp_path, changes):
    with pytest.raises(TrainingError, match="repeat the settings of that run, or start a new one with --from"):
        go_on(tmp_path / "branch", config(**changes), checkpoint_path(first, 2))
    assert not (tmp_path / "branch").exists()


def test_a_finished_run_with_fewer_steps_does_not_claim_another_schedule(first, capsys):
    assert go_on(first, config(steps=3)).step == 4
    assert capsys.readouterr().err == ""


def test_a_branch_without_steps_left_is_an_error(first, tmp_path):
    with pytest.raises(TrainingError, match=r"0000002\.pt: has 2 steps already; choose a higher --steps"):
        go_on(tmp_path / "branch", config(steps=2), checkpoint_path(first, 2))
    assert not (tmp_path / "branch").exists()
