"""Training: exact resume, stopping, errors, and the contents of a run folder."""

from __future__ import annotations

import json
import os
import signal
import threading
from types import SimpleNamespace

import pytest
import torch

from model.formats.checkpoint import checkpoint_path, checkpoints, read_checkpoint, save_checkpoint
from model.options import OptionError
from model.training.config import TrainConfig, TrainingError
from model.training.loop import train
from model.training.start import find_resume
from model.training.state import new_run
from pipeline import signals
from pipeline.load.sampler import LoaderState
from pipeline.spec import Preprocessing
from shards.errors import LockedError
from shards.files import temporary_path
from shards.locks import locked
from tests.conftest import PATIENCE_S
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_run_after_the_step_with_a_checkpoint(tmp_path, number, capfd):
    before = signal.getsignal(number)
    done, _ = run_training(tmp_path, config(), at_batch={1: lambda: os.kill(os.getpid(), number)})
    assert done == 2
    assert [path.name for path in checkpoints(tmp_path)] == ["0000002.pt"]
    assert read_checkpoint(checkpoints(tmp_path)[0])["loader_state"] == {"step": 2}
    assert "stopping after this step" in capfd.readouterr().err
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_long_wait_for_a_batch_with_a_checkpoint(tmp_path, number, monkeypatch):
    monkeypatch.setattr(signals, "WAIT_S", 0.05)
    held = threading.Event()

    def wait():
        os.kill(os.getpid(), number)
        held.wait(PATIENCE_S)
        pytest.fail("not interrupted")

    done, _ = run_training(tmp_path, config(), at_batch={2: wait})
    assert done == 2
    assert [path.name for path in checkpoints(tmp_path)] == ["0000002.pt"]
    assert read_checkpoint(checkpoints(tmp_path)[0])["loader_state"] == {"step": 2}


def test_a_signal_that_was_ignored_before_is_ignored(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        done, _ = run_training(tmp_path, config(steps=3), at_batch={1: lambda: os.kill(os.getpid(), signal.SIGHUP)})
    finally:
        signal.signal(signal.SIGHUP, before)
    assert done == 3


def test_a_signal_saves_a_checkpoint_when_nobody_reads_the_messages_any_more(tmp_path, stop_reading, monkeypatch):
    """Ctrl-C ends the ``tee`` behind ``lrfr train |& tee log``, too; SIGHUP comes twice when a terminal is closed."""

    def hang_up():
        stop_reading()
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGHUP)

    monkeypatch.setattr(signals, "REPEAT_S", PATIENCE_S)
    done, _ = run_training(tmp_path, config(log_every=1), at_batch={1: hang_up})
    assert done == 2
    assert [path.name for path in checkpoints(tmp_path)] == ["0000002.pt"]


def test_a_second_signal_interrupts_immediately(tmp_path, monkeypatch):
    monkeypatch.setattr(signals, "REPEAT_S", 0.0)

    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        run_training(tmp_path, config(), at_batch={1: twice})


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


def test_resuming_from_a_bare_state_dict_is_an_error(tmp_path):
    state = new_run(config(), classes=CLASSES, preprocessing=SPEC)
    with pytest.raises(TrainingError, match="a bare state dict, without optimizer and loader state"):
        state.restore(state.learner.backbone.state_dict(), tmp_path / "net.pth")


def test_two_processes_do_not_train_into_one_run(tmp_path):
    with locked(tmp_path, "testing"), pytest.raises(LockedError, match="another process is training here"):
        run_training(tmp_path, config())


def test_a_blocking_pipe_inside_a_run_is_not_reported_as_another_run(tmp_path):
    def fail():
        raise BlockingIOError("write could not complete without blocking")

    with pytest.raises(BlockingIOError, match="could not complete"):
        run_training(tmp_path, config(), at_batch={1: fail})


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    settings = config(save_every=2)
    state = new_run(settings, classes=CLASSES, preprocessing=SPEC)

    def ruin():
        with torch.no_grad():
            state.learner.backbone[0].weight.fill_(float("nan"))

    with pytest.raises(TrainingError, match="the loss of step 4 is nan"):
        train(Stream(at_batch={3: ruin}), state, tmp_path)
    assert [path.name for path in checkpoints(tmp_path)] == ["0000002.pt"]


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
        ("cross-entropy", "32", ["class_rows adaface is for heads of cosines; softmax starts like a linear layer"]),
    ],
)
def test_surprising_settings_are_reported(losses, views, remarks):
    head = {"head": "softmax", "class_rows": "adaface"} if losses == "cross-entropy" else {}
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
