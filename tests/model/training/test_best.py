"""The best checkpoint: which it is, after interruptions, damage and in new runs."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from model.formats.checkpoint import checkpoint_path, checkpoints
from model.formats.network import load_network
from model.training.config import TrainingError
from shards.files import temporary_path
from tests.model.training.evaluated import best, evaluations, resume, step_of, table
from tests.model.training.runs import config, losses, run_training

RISE_AND_FALL = {3: 0.5, 6: 0.9, 8: 0.7}


def by_a(**changes):
    return config(eval_every=3, best="a", keep=9, **changes)


def test_the_best_checkpoint_is_the_one_of_its_step(tmp_path):
    run_training(tmp_path, by_a(), evaluate=table(tmp_path, a=RISE_AND_FALL))
    assert best(tmp_path) == {"metric": "a", "value": 0.9, "step": 6}
    twin = checkpoint_path(tmp_path, 6)
    assert (tmp_path / "best.pt").read_bytes() == twin.read_bytes()
    assert load_network(tmp_path / "best.pt").digest == load_network(twin).digest
    assert load_network(checkpoint_path(tmp_path, 3)).digest != load_network(twin).digest


@pytest.mark.parametrize(
    ("figures", "step"),
    [
        ({3: 0.5, 6: 0.5, 8: 0.5}, 3),  # the first of equals
        ({3: math.nan, 6: math.inf, 8: -2.0}, 8),
        ({3: 0.5, 6: math.inf, 8: math.nan}, 3),
    ],
)
def test_the_best_figure_is_finite_and_larger_than_all_before(tmp_path, figures, step):
    run_training(tmp_path, by_a(), evaluate=table(tmp_path, a=figures))
    assert best(tmp_path) == {"metric": "a", "value": figures[step], "step": step}


def test_without_a_finite_figure_there_is_no_best_checkpoint(tmp_path):
    run_training(tmp_path, by_a(), evaluate=lambda backbone: {"a": math.nan})
    assert len(evaluations(tmp_path)) == 4
    assert not list(tmp_path.glob("best*"))


@pytest.mark.parametrize(("later", "step"), [(0.4, 3), (0.5, 3), (0.6, 8)])
def test_a_resumed_run_knows_the_best_so_far(tmp_path, later, step):
    run_training(tmp_path, by_a(steps=3), evaluate=table(tmp_path, a={3: 0.5}))
    resume(tmp_path, by_a(), evaluate=table(tmp_path, a={6: 0.1, 8: later}))
    assert best(tmp_path)["step"] == step


@pytest.mark.parametrize(
    ("name", "after"), [("best.pt", False), ("best.pt", True), ("best.json", False), ("best.json", True)]
)
@pytest.mark.parametrize("step", [3, 6])
def test_a_run_killed_while_writing_the_best_checkpoint_ends_with_the_right_one(
    tmp_path, monkeypatch, name, after, step
):
    """``after``: the run is killed after the file has its name."""
    run, replace = tmp_path, os.replace

    def killed(source, target):
        at = Path(target).name == name and step_of(run) == step
        if at and not after:
            raise KeyboardInterrupt
        replace(source, target)
        if at:
            raise KeyboardInterrupt

    evaluate = table(run, a=RISE_AND_FALL)
    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        run_training(run, by_a(), evaluate=evaluate)
    monkeypatch.undo()
    assert checkpoints(run)[-1] == checkpoint_path(run, step)
    temporary_path(run / "best.pt").write_bytes(b"half")  # of a run killed during the copy
    resume(run, by_a(), evaluate=evaluate)
    assert best(run) == {"metric": "a", "value": 0.9, "step": 6}
    assert evaluations(run) == [{"step": step, "a": value} for step, value in {0: 9.0, **RISE_AND_FALL}.items()]
    assert not list(run.glob("*.partial"))


def test_resuming_from_before_the_best_step_keeps_the_best_checkpoint(tmp_path):
    figures = {3: 0.5, 4: 0.6, 5: 0.8, 6: 0.9, 7: 0.1, 8: 0.7}
    evaluate = table(tmp_path, a=figures)
    run_training(tmp_path, by_a(), evaluate=evaluate)
    for step in (6, 8):
        checkpoint_path(tmp_path, step).unlink()
    before = (tmp_path / "best.pt").stat()
    resume(tmp_path, config(eval_every=1, best="a", steps=5), evaluate=evaluate)
    assert [row["step"] for row in evaluations(tmp_path)] == [0, 3, 4, 5]
    assert best(tmp_path) == {"metric": "a", "value": 0.9, "step": 6}  # larger than 0.6 and 0.8
    resume(tmp_path, config(eval_every=1, best="a"), evaluate=evaluate)
    assert evaluations(tmp_path) == [{"step": step, "a": value} for step, value in {0: 9.0, **figures}.items()]
    assert best(tmp_path) == {"metric": "a", "value": 0.9, "step": 6}
    assert (tmp_path / "best.pt").stat().st_ino == before.st_ino  # an equal figure is not written again


def overwrite(content):
    return lambda run: (run / "best.json").write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        overwrite(b""),
        overwrite(b'{"metric": "a", "val'),
        overwrite(b"[]"),
        overwrite(b"null"),
        overwrite(b"\xff\xfe"),
        overwrite(b'{"metric": "a"}'),
        overwrite(b'{"metric": "a", "value": "high", "step": 3}'),
        overwrite(b'{"metric": "a", "value": NaN, "step": 3}'),
        overwrite(b'{"metric": "b", "value": 0.5, "step": 3}'),
        lambda run: (run / "best.json").unlink(),
        lambda run: (run / "best.pt").unlink(),
    ],
)
def test_a_damaged_best_file_or_one_of_another_figure_is_ignored(tmp_path, damage):
    run_training(tmp_path, by_a(steps=3), evaluate=table(tmp_path, a={3: 0.5}))
    damage(tmp_path)
    resume(tmp_path, by_a(steps=5), evaluate=table(tmp_path, a={5: 0.1}))
    assert best(tmp_path) == {"metric": "a", "value": 0.1, "step": 5}


def test_another_best_figure_starts_a_new_comparison(tmp_path, capsys):
    run_training(tmp_path, by_a(steps=3), evaluate=table(tmp_path, a={3: 0.5}))
    resume(tmp_path, config(steps=5, best="b"), evaluate=table(tmp_path, a={5: 0.9}, b={5: 0.2}))
    assert best(tmp_path) == {"metric": "b", "value": 0.2, "step": 5}
    assert (
        f"{tmp_path / 'best.json'}: no best checkpoint by b; the next evaluation starts a new comparison\n"
        in capsys.readouterr().err
    )


def test_a_new_run_ignores_the_best_checkpoint_of_a_deleted_run(tmp_path):
    run_training(tmp_path, by_a(), evaluate=table(tmp_path, a=RISE_AND_FALL))
    for path in checkpoints(tmp_path):
        path.unlink()
    run_training(tmp_path, by_a(), evaluate=table(tmp_path, a={3: 0.1, 6: 0.2, 8: 0.1}))
    assert best(tmp_path) == {"metric": "a", "value": 0.2, "step": 6}


def test_an_unknown_best_figure_is_an_error(tmp_path):
    with pytest.raises(TrainingError) as error:
        run_training(tmp_path, config(eval_every=4, best="c"), evaluate=lambda backbone: {"a": 1.0, "b/x@8": 2.0})
    assert str(error.value) == "best is 'c', expected one of a, b/x@8"
    assert losses(tmp_path) == {}  # an error before the first step


def test_a_best_figure_without_evaluation_is_an_error(tmp_path):
    with pytest.raises(TrainingError, match="best is 'a', but nothing is evaluated; leave it out, or evaluate"):
        run_training(tmp_path, config(best="a"))
    assert losses(tmp_path) == {}
