"""Signals are noted or delayed, never lost, and handlers are restored."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
import threading
import time
from multiprocessing import resource_tracker

import pytest

from pipeline import signals
from pipeline.executors import starting_workers
from pipeline.signals import SIGNALS, delayed_interruption, handle_signals, stop_signals
from tests.processes import PATIENCE_S


@pytest.fixture(autouse=True)
def handler(monkeypatch):
    """The handler of all SIGNALS: it raises KeyboardInterrupt."""
    monkeypatch.setattr(signals, "_handlers", [])  # some signals here come so late that one is left
    before = {number: signal.signal(number, signal.default_int_handler) for number in SIGNALS}
    yield signal.default_int_handler
    for number, restored in before.items():
        signal.signal(number, restored)


@pytest.fixture
def clock(monkeypatch):
    """Readings of the clock; the last one is the time."""
    readings = [0.0]
    monkeypatch.setattr(signals.time, "monotonic", lambda: readings[-1])
    return readings


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_noted_and_the_second_interrupts(number, handler, clock, capfd):
    def second():
        with stop_signals("stopping\n") as stop:
            assert not stop.requested
            os.kill(os.getpid(), number)
            assert stop.requested
            clock.append(1.0)
            os.kill(os.getpid(), number)
            pytest.fail("not interrupted")

    with pytest.raises(KeyboardInterrupt):
        second()
    assert capfd.readouterr().err == "stopping\n"
    assert [signal.getsignal(one) for one in SIGNALS] == [handler] * 3


@pytest.mark.parametrize("number", SIGNALS)
def test_a_request_that_arrives_twice_is_one(number, clock):
    """A closed terminal sends SIGHUP twice; SIGTERM comes from a batch system, and again from torchrun."""
    with stop_signals() as stop:
        os.kill(os.getpid(), number)
        clock.append(0.2)
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        clock.append(0.4)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)


def test_the_next_command_of_a_process_counts_its_own_signals(clock, monkeypatch):
    """Also if an interruption at the very end of a block has left a handler of it."""
    monkeypatch.setattr(signals, "_handlers", [pytest.fail])
    for _ in range(2):
        with stop_signals() as stop:
            signal.raise_signal(signal.SIGINT)
        assert stop.requested
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_delayed_signal_goes_to_the_handler_of_the_caller(number):
    """It may note the signal, as training does, and raise nothing."""
    signal.signal(number, lambda one, frame: noted.append(one))
    noted = []
    with delayed_interruption():
        signal.raise_signal(number)
        assert noted == []
    assert noted == [number]
    with stop_signals() as stop:
        with delayed_interruption():
            signal.raise_signal(number)
        assert stop.requested


def test_a_handler_that_is_put_back_too_late_interrupts():
    """As by a library that saves and restores handlers, in a block of its own."""
    with stop_signals():
        ours = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, ours)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)


def test_a_signal_is_noted_when_nobody_reads_its_message(stop_reading):
    stop_reading()
    with stop_signals("stopping\n") as stop:
        signal.raise_signal(signal.SIGINT)
    assert stop.requested


@pytest.mark.parametrize("number", SIGNALS)
def test_an_ignored_signal_stays_ignored(number):
    signal.signal(number, signal.SIG_IGN)
    with stop_signals() as stop:
        os.kill(os.getpid(), number)
    assert not stop.requested
    assert signal.getsignal(number) == signal.SIG_IGN


def test_other_threads_change_no_handler(handler):
    def enter():
        with stop_signals():
            found.extend(map(signal.getsignal, SIGNALS))

    found = []
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [handler] * 3


@pytest.mark.parametrize("block", [delayed_interruption, starting_workers])
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("error", [None, OSError("no process is left")])
def test_an_interruption_is_raised_at_the_end_of_the_block(block, number, error, handler):
    def work():
        with block():
            signal.raise_signal(number)  # to this thread: os.kill lets another one take it, a moment later
            done.append("work")
            if error:
                raise error

    done = []
    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["work"]
    assert [signal.getsignal(one) for one in SIGNALS] == [handler] * 3
    assert not set(SIGNALS) & signal.pthread_sigmask(signal.SIG_BLOCK, [])


def interrupted(work, at, clock):
    """Runs ``work``; SIGHUP arrives before its bytecode instruction ``at``. None if it has fewer."""

    def trace(frame, event, argument):
        frame.f_trace_opcodes = True
        if event == "opcode" and next(executed) == at:
            sys.settrace(None)
            arrived.append(at)
            clock.append(clock[-1] + 1.0)
            signal.raise_signal(signal.SIGHUP)
        return trace

    executed, arrived, before = itertools.count(), [], sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # Python 3.12 traces instructions only if a frame asked before settrace
    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False if arrived else None


@pytest.mark.parametrize("block", [delayed_interruption, starting_workers])
@pytest.mark.parametrize("outer", [handle_signals, contextlib.nullcontext])
def test_no_signal_is_lost_while_a_block_is_entered_or_left(block, outer, handler, clock, monkeypatch):
    """A command ran to its end after a signal that came as its workers had started."""

    def work():
        with block():
            pass

    monkeypatch.setattr(resource_tracker, "ensure_running", lambda: None)
    instructions = itertools.count() if outer is handle_signals else itertools.count(step=7)  # it sets handlers
    with outer(handler):
        results = (interrupted(work, at, clock) for at in instructions)
        found = list(itertools.takewhile(lambda one: one is not None, results))
    assert len(found) > 10  # how many it has depends on the version of Python
    assert found.count(False) == 0


def test_a_second_signal_ends_the_delay(monkeypatch):
    monkeypatch.setattr(signals, "REPEAT_S", 0.0)

    def work():
        with delayed_interruption():
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            time.sleep(PATIENCE_S)
            pytest.fail("not interrupted")

    with pytest.raises(KeyboardInterrupt):
        work()


def test_errors_of_the_block_are_raised():
    with pytest.raises(OSError, match="no process is left"), starting_workers():
        raise OSError("no process is left")
