"""A signal ends a run after a step, with a checkpoint."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from model.formats.checkpoint import checkpoints, read_checkpoint
from pipeline import signals
from tests.model.training.runs import config, run_training
from tests.processes import PATIENCE_S


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
