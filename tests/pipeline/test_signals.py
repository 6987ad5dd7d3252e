"""Signals are noted or delayed, never lost, and handlers are restored."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from pipeline.executors import starting_workers
from pipeline.signals import SIGNALS, delayed_interruption, stop_signals
from tests.conftest import PATIENCE_S


@pytest.fixture(autouse=True)
def handler():
    """The handler of all SIGNALS: it raises KeyboardInterrupt."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in SIGNALS}
    yield signal.default_int_handler
    for number, restored in before.items():
        signal.signal(number, restored)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_noted_and_the_second_interrupts(number, handler, capfd):
    def second():
        with stop_signals("stopping\n") as stop:
            assert not stop.requested
            os.kill(os.getpid(), number)
            assert stop.requested
            os.kill(os.getpid(), number)
            pytest.fail("not interrupted")

    with pytest.raises(KeyboardInterrupt):
        second()
    assert capfd.readouterr().err == "stopping\n"
    assert [signal.getsignal(one) for one in SIGNALS] == [handler] * 3


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


def test_a_second_signal_ends_the_delay():
    def work():
        with delayed_interruption():
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
            time.sleep(PATIENCE_S)
            pytest.fail("not interrupted")

    with pytest.raises(KeyboardInterrupt):
        work()


def test_errors_of_the_block_are_raised():
    with pytest.raises(OSError, match="no process is left"), starting_workers():
        raise OSError("no process is left")
