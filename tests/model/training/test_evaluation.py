"""Evaluation during training: what it leaves alone, when it runs, what it writes, interruptions."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import signal
import time

import pytest
import torch

from model.formats.checkpoint import checkpoint_path, checkpoints, read_checkpoint
from model.training.evaluation import eval_mode
from model.training.loop import train
from model.training.runlog import RunLog
from model.training.state import new_run
from pipeline import signals
from tests.model.training.evaluated import FACES, evaluations, resume, spread, step_of, table
from tests.model.training.runs import CLASSES, SPEC, Stream, config, losses, run_training

# --- the training is unaffected


def test_a_run_with_evaluation_has_the_losses_and_weights_of_one_without(tmp_path):
    seen = []

    def evaluate(backbone):
        seen.append((backbone.training, torch.is_grad_enabled()))
        torch.rand(7)
        return spread(backbone)

    ends = {}
    for name, function in (("with", evaluate), ("without", None)):
        settings = config(eval_every=2)
        state = new_run(settings, classes=CLASSES, preprocessing=SPEC)
        state.learner.backbone.append(torch.nn.Dropout(0.5))  # depends on the mode and on the random state
        train(Stream(), state, tmp_path / name, evaluate=function)
        ends[name] = read_checkpoint(checkpoint_path(tmp_path / name, 8))
    assert seen == [(False, False)] * 5
    assert len(losses(tmp_path / "with")) == 8
    assert losses(tmp_path / "with") == losses(tmp_path / "without")
    for part in ("backbone_state", "head_state"):
        for ours, theirs in zip(ends["with"][part].values(), ends["without"][part].values(), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("training", [True, False])
def test_mode_and_random_state_are_restored_after_an_exception(training):
    network = torch.nn.Sequential(torch.nn.Dropout()).train(training)
    before = torch.get_rng_state()
    seen = []

    def fails():
        with eval_mode(network):
            seen.append(network[0].training)
            torch.rand(1)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fails()
    assert seen == [False]
    assert network.training is network[0].training is training
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.gpu
def test_the_random_state_of_the_gpu_is_restored():
    network = torch.nn.Linear(2, 2).cuda()
    before = torch.cuda.get_rng_state()
    with eval_mode(network):
        torch.rand(1, device="cuda")
    assert torch.equal(torch.cuda.get_rng_state(), before)


@pytest.fixture
def clock(monkeypatch):
    """The time in seconds; ``clock[0] += 1000`` simulates a long wait."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_evaluation_time_counts_neither_as_training_nor_as_waiting(tmp_path, clock, capsys):
    def passes(seconds):
        clock[0] += seconds

    def evaluate(backbone):
        passes(1000)
        return {}

    settings = config(eval_every=2)
    run_training(tmp_path, settings, evaluate=evaluate, at_batch={number: lambda: passes(3) for number in range(8)})
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["images_per_s"], row["loader_wait"]) for row in rows] == [(4.0, 1.0)] * 8  # 12 images in 3 s
    assert len(re.findall(r"^eval at step \d:   \(1000\.0 s\)$", capsys.readouterr().err, re.M)) == 5


def test_a_pause_does_not_change_rates_and_counts_in_the_eta(tmp_path, clock, capsys):
    def passes(seconds):
        clock[0] += seconds

    with RunLog(tmp_path, steps=4, start=0, device=torch.device("cpu")) as log:
        with log.paused():  # before the first log line: not in the ETA
            passes(1000)
        for step in (1, 2):
            with log.waiting():
                passes(1)
            passes(3)
            log.count(images=8 if step == 1 else 1)
            log.write(step, {"loss": 1.0, "lr": 0.1})
            with log.paused():
                passes(100)
    assert capsys.readouterr().err.splitlines() == [
        "step 1/4  loss 1.0000  lr 0.1  2 images/s  loader wait 25.0%  ETA 0:00:12",
        "step 2/4  loss 1.0000  lr 0.1  0.25 images/s  loader wait 25.0%  ETA 0:01:48",
    ]


# --- when, and what is written


@pytest.mark.parametrize(("every", "steps"), [(3, [0, 3, 6, 8]), (4, [0, 4, 8]), (8, [0, 8]), (20, [0, 8])])
def test_evaluations_before_the_first_step_at_intervals_and_after_the_last(tmp_path, every, steps):
    calls = []
    run_training(tmp_path, config(eval_every=every), evaluate=lambda backbone: calls.append(1) or {"a": 1})
    assert [row["step"] for row in evaluations(tmp_path)] == steps
    assert len(calls) == len(steps)


def test_figures_are_written_to_a_file_tensorboard_and_stderr(tmp_path, capsys):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    figures = {"lfw/accuracy@8": {0: 0.5, 4: 0.91234, 8: 0.5}, "qmul/auc": {0: 0.5, 4: 0.80119, 8: math.nan}}
    run_training(tmp_path, config(eval_every=4), evaluate=table(tmp_path, **figures))
    assert (tmp_path / "eval.jsonl").read_text() == (
        '{"step": 0, "lfw/accuracy@8": 0.5, "qmul/auc": 0.5}\n'
        '{"step": 4, "lfw/accuracy@8": 0.91234, "qmul/auc": 0.80119}\n'
        '{"step": 8, "lfw/accuracy@8": 0.5, "qmul/auc": null}\n'
    )
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("eval")]
    assert len(lines) == 3
    assert re.fullmatch(r"eval at step 4: lfw/accuracy@8 0\.9123  qmul/auc 0\.8012  \(\d+\.\d s\)", lines[1])
    assert re.fullmatch(r"eval at step 8: lfw/accuracy@8 0\.5000  qmul/auc nan  \(\d+\.\d s\)", lines[2])
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    shown = [(event.step, event.value) for event in events.Scalars("eval/lfw/accuracy@8")]
    assert shown == [(0, 0.5), (4, pytest.approx(0.91234)), (8, 0.5)]
    assert len(events.Scalars("loss")) == 8
    assert not (tmp_path / "best.pt").exists()
    assert not (tmp_path / "best.json").exists()


def test_rows_of_repeated_steps_are_dropped(tmp_path):
    run_training(tmp_path, config(eval_every=2, save_every=2, keep=9), evaluate=lambda backbone: {"a": 1})
    with open(tmp_path / "eval.jsonl", "a") as stream:
        stream.write('{"step": 4, "a"')
    for step in (6, 8):
        checkpoint_path(tmp_path, step).unlink()
    run_training(
        tmp_path, config(eval_every=2), resume=checkpoint_path(tmp_path, 4), evaluate=lambda backbone: {"a": 2}
    )
    assert [(row["step"], row["a"]) for row in evaluations(tmp_path)] == [(0, 1), (2, 1), (4, 1), (6, 2), (8, 2)]


def test_without_an_evaluation_nothing_is_evaluated(tmp_path, capsys):
    run_training(tmp_path, config(eval_every=2, save_every=4))
    assert not (tmp_path / "eval.jsonl").exists()
    assert "eval" not in capsys.readouterr().err
    assert [path.name for path in checkpoints(tmp_path)] == ["0000004.pt", "0000008.pt"]


# --- interruptions


def assert_ends_as_if_uninterrupted(run, settings, evaluate=spread):
    """Resumes ``run`` and compares it with an uninterrupted run."""
    whole = run.with_name("whole")
    run_training(whole, settings, evaluate=evaluate)
    resume(run, settings, evaluate=evaluate)
    assert losses(run) == losses(whole)
    assert len(evaluations(whole)) > 1
    assert evaluations(run) == evaluations(whole)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("step", [4, 8])
def test_a_failed_evaluation_loses_nothing_and_is_repeated_on_resume(tmp_path, error, step):
    run, settings = tmp_path / "run", config(eval_every=2, save_every=100)

    def fails(backbone):
        if step_of(run) == step:
            raise error("here")
        return spread(backbone)

    with pytest.raises(error, match="here"):
        run_training(run, settings, evaluate=fails)
    assert checkpoints(run)[-1] == checkpoint_path(run, step)
    assert max(row["step"] for row in evaluations(run)) == step - 2
    assert_ends_as_if_uninterrupted(run, settings)


@pytest.mark.parametrize("found", [None, [0.5], {"lfw/accuracy": "high"}, {"lfw/accuracy": None}])
def test_an_evaluation_that_returns_no_numbers_says_so(tmp_path, found):
    with pytest.raises(TypeError, match=r"^evaluate returned .*, expected a dict of numbers, such as {'lfw/accuracy'"):
        run_training(tmp_path, config(), evaluate=lambda backbone: found)


@pytest.mark.parametrize("step", [4, 8])
def test_a_signal_during_an_evaluation_stops_it_at_the_next_batch(tmp_path, step, capsys):
    run, settings = tmp_path / "run", config(eval_every=4)
    embedded = []

    def evaluate(backbone):
        for number in range(3):
            with contextlib.suppress(Exception):  # does not prevent the stop
                backbone(FACES)
            embedded.append((step_of(run), number))
            if embedded[-1] == (step, 1):
                os.kill(os.getpid(), signal.SIGTERM)
        return spread(backbone)

    done, learner = run_training(run, settings, evaluate=evaluate)
    assert done == step
    assert embedded[-1] == (step, 1)
    assert not learner.backbone._forward_pre_hooks
    assert f"eval at step {step}: abandoned; the run will start with it when it continues\n" in capsys.readouterr().err
    assert checkpoints(run)[-1] == checkpoint_path(run, step)
    assert_ends_as_if_uninterrupted(run, settings)


def test_a_second_signal_during_an_evaluation_interrupts_immediately(tmp_path, monkeypatch):
    monkeypatch.setattr(signals, "REPEAT_S", 0.0)

    def evaluate(backbone):
        if step_of(tmp_path) == 0:
            return {}
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("continued")

    with pytest.raises(KeyboardInterrupt):
        run_training(tmp_path, config(eval_every=4), evaluate=evaluate)
    assert checkpoints(tmp_path)[-1] == checkpoint_path(tmp_path, 4)


def test_no_evaluation_starts_after_a_stop_is_requested(tmp_path):
    run, settings, seen = tmp_path / "run", config(eval_every=4), []

    def evaluate(backbone):
        seen.append(step_of(run))
        return spread(backbone)

    done, _ = run_training(run, settings, evaluate=evaluate, at_batch={3: lambda: os.kill(os.getpid(), signal.SIGINT)})
    assert (done, seen) == (4, [0])
    assert_ends_as_if_uninterrupted(run, settings)


def test_a_finished_run_is_evaluated_only_if_it_was_not_before(tmp_path):
    calls = []
    run_training(tmp_path, config())
    for _ in range(2):
        done, _ = resume(tmp_path, config(), evaluate=lambda backbone: calls.append(1) or {"a": 1})
        assert done == 8
    assert [row["step"] for row in evaluations(tmp_path)] == [8]
    assert len(calls) == 1


def test_a_branch_does_not_evaluate_the_checkpoint_of_another_run(tmp_path):
    run_training(tmp_path / "one", config(steps=4))
    run_training(
        tmp_path / "other",
        config(eval_every=4),
        resume=checkpoint_path(tmp_path / "one", 4),
        evaluate=lambda backbone: {"a": 1},
    )
    assert [row["step"] for row in evaluations(tmp_path / "other")] == [8]
