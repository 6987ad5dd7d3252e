"""Run folders: what is in one, what may be continued, and what is refused."""

from __future__ import annotations

import json
import os

import pytest

from model.formats.checkpoint import checkpoint_path, checkpoints, save_checkpoint
from model.training.config import TrainingError
from model.training.loop import train
from model.training.start import find_resume
from model.training.state import new_run
from pipeline.spec import Preprocessing
from shards.errors import LockedError
from shards.files import temporary_path
from shards.locks import locked
from tests.model.training.runs import CLASSES, SPEC, Stream, config, losses, run_training


def test_contents_of_a_run_folder(tmp_path):
    run_training(tmp_path, config(keep=2))
    assert json.loads((tmp_path / "config.json").read_text()) == {
        **config(keep=2).to_dict(),
        "classes": CLASSES,
        "preprocessing": Preprocessing(**SPEC).to_dict(),
        "trained_on": Preprocessing(**SPEC).to_dict(),
    }
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert set(rows[0]) == {
        "step",
        "loss",
        "hardest-triplet",
        "ce@128",
        "ce@8",
        "ce@12",
        "ce@16",
        "lr",
        "images_per_s",
        "loader_wait",
    }
    for row in rows:
        assert row["loss"] == pytest.approx(
            sum(row[f"ce@{size}"] for size in (128, 8, 12, 16)) / 4 + row["hardest-triplet"], rel=1e-5
        )
        assert row["images_per_s"] > 0
        assert 0 <= row["loader_wait"] <= 1
    assert [path.name for path in checkpoints(tmp_path)] == ["0000006.pt", "0000008.pt"]
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))


def test_tensorboard_has_the_same_figures(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_training(tmp_path, config())
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    logged = {event.step: event.value for event in events.Scalars("loss")}
    assert logged == {step: pytest.approx(loss, rel=1e-6) for step, loss in losses(tmp_path).items()}


def test_a_file_in_place_of_a_run_folder_is_an_error(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(TrainingError, match="run: is a file, expected a run folder; choose another --out"):
        find_resume(tmp_path / "run", "auto")
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(TrainingError, match="checkpoints: is a file, expected a folder; delete it, or choose another"):
        find_resume(tmp_path, "auto")


@pytest.mark.parametrize("name", ["metrics.jsonl", "config.json", "checkpoints/0000009.pt"])
def test_a_pipe_in_a_run_folder_is_an_error(tmp_path, name):
    (tmp_path / "checkpoints").mkdir()
    os.mkfifo(tmp_path / name)
    with pytest.raises(TrainingError, match=f"{name}: neither a file nor a folder; delete it"):
        find_resume(tmp_path, "auto")


def test_find_resume(tmp_path):
    assert find_resume(tmp_path, "auto") is None
    assert find_resume(tmp_path, "never") is None
    for step in (5, 20):
        save_checkpoint(checkpoint_path(tmp_path, step), {"step": step})
    temporary_path(checkpoint_path(tmp_path, 30)).write_bytes(b"half")
    assert [path.name for path in checkpoints(tmp_path)] == ["0000005.pt", "0000020.pt"]
    assert find_resume(tmp_path, "auto") == checkpoint_path(tmp_path, 20)
    assert find_resume(tmp_path, str(checkpoint_path(tmp_path, 20))) == checkpoint_path(tmp_path, 20)
    assert find_resume(tmp_path / "new", "elsewhere.pt").name == "elsewhere.pt"
    with pytest.raises(TrainingError, match=r"is a run folder; name one of its checkpoints, such as .*/0000020\.pt"):
        find_resume(tmp_path / "new", str(tmp_path))
    with pytest.raises(TrainingError, match="has a run up to step 20; choose another --out to continue from"):
        find_resume(tmp_path, str(checkpoint_path(tmp_path, 5)))
    with pytest.raises(TrainingError, match="has a run up to step 20; choose another --out, or delete it"):
        find_resume(tmp_path, "never")


def test_a_partial_metrics_row_of_a_killed_run_is_dropped(tmp_path):
    run_training(tmp_path, config(steps=3))
    with open(tmp_path / "metrics.jsonl", "a") as stream:
        stream.write('{"step": 4, "loss": 1.0}\n{"step": 5, "lo')
    run_training(tmp_path, config(steps=5), resume=checkpoints(tmp_path)[-1])
    assert sorted(losses(tmp_path)) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("damage", [b"garbage\n", b'{"a": 1}\n', b"[]\n", b"null\n", b"\xff\xfe\x00\n"])
def test_a_damaged_metrics_file_does_not_stop_a_run(tmp_path, damage):
    run_training(tmp_path, config(steps=3))
    with open(tmp_path / "metrics.jsonl", "ab") as stream:
        stream.write(damage)
    run_training(tmp_path, config(steps=4), resume=checkpoints(tmp_path)[-1])
    assert sorted(losses(tmp_path)) == [1, 2, 3, 4]


def test_two_processes_do_not_train_into_one_run(tmp_path):
    with locked(tmp_path, "testing"), pytest.raises(LockedError, match="another process is training here"):
        run_training(tmp_path, config())


def test_a_blocking_pipe_inside_a_run_is_not_reported_as_another_run(tmp_path):
    def fail():
        raise BlockingIOError("write could not complete without blocking")

    with pytest.raises(BlockingIOError, match="could not complete"):
        run_training(tmp_path, config(), at_batch={1: fail})


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl"])
@pytest.mark.parametrize("mine", ["mine", "[]", '{"hidden_size": 512}'])
def test_a_file_of_something_else_is_not_replaced(tmp_path, name, mine):
    (tmp_path / name).write_text(mine)
    state = new_run(config(steps=1), classes=CLASSES, preprocessing=SPEC)
    with pytest.raises(TrainingError, match=f"{name}: not of a run; choose another --out, or delete the file"):
        train(Stream(), state, tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == mine


def test_a_run_is_not_replaced_by_one_that_begins_before_its_end(tmp_path):
    """As when a cell of a notebook runs twice; and the oldest checkpoints, which are deleted, would be the new ones."""
    run_training(tmp_path, config(steps=2))
    before = {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    with pytest.raises(TrainingError, match=r"has a run up to step 2, but training would begin after step 0; choose"):
        run_training(tmp_path, config(steps=2))
    assert {path: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()} == before
