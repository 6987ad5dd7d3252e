"""Worker processes leave Ctrl-C to the one that started them, and end when it says so."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from pipeline.workers import WorkerError, WorkerPool, signals_wait, starting_processes

WAITING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_worker_takes_no_notice_of_a_terminal_from_its_first_moment_on(number):
    with WorkerPool(1) as pool:
        future = pool.submit(os.getpid)
        (pid,) = pool._processes
        os.kill(pid, number)  # which is still importing
        assert future.result() == pid
        os.kill(pid, number)
        assert pool.submit(os.getpid).result() == pid


def test_a_worker_begins_with_what_it_is_given():
    with WorkerPool(1, os.chdir, "/proc") as pool:
        assert pool.submit(os.getcwd).result() == "/proc"


def test_workers_end_at_once():
    began = time.monotonic()
    with WorkerPool(1) as pool:
        assert pool.submit(os.getpid).result()
        pool.submit(time.sleep, 60)
        (process,) = pool._processes.values()
    assert not process.is_alive()
    assert time.monotonic() - began < 20


@pytest.fixture
def stop():
    """The handler of the signals that wait: it raises KeyboardInterrupt."""

    def handler(number, frame):
        raise KeyboardInterrupt

    before = {number: signal.signal(number, handler) for number in WAITING}
    yield handler
    for number, restored in before.items():
        signal.signal(number, restored)


@pytest.mark.parametrize("number", WAITING)
def test_an_interruption_amid_a_start_waits_for_its_end(stop, number):
    def start():
        with starting_processes():
            os.kill(os.getpid(), number)
            done.append("started")

    done = []
    with pytest.raises(KeyboardInterrupt):
        start()
    assert signal.getsignal(number) is stop
    assert done == ["started"]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("change", range(1, 9))
def test_an_interruption_while_handlers_change_leaves_none_changed(stop, monkeypatch, number, change):
    """Before each of the changes."""

    def changed(*arguments):
        changes.append(arguments)
        if len(changes) == change:
            os.kill(os.getpid(), number)
        return change_handler(*arguments)

    def start():
        with starting_processes():
            pass

    change_handler, changes = signal.signal, []
    with monkeypatch.context() as patched:
        patched.setattr(signal, "signal", changed)
        with pytest.raises(KeyboardInterrupt):
            start()
    for waiting in (signal.SIGINT, signal.SIGTERM):
        for _ in range(2):  # a handler that was left behind passes the first one on
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(waiting)
        assert signal.getsignal(waiting) is stop
    assert not {signal.SIGINT, signal.SIGTERM} & signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.usefixtures("stop")
def test_an_interruption_amid_a_start_that_fails_is_not_lost():
    def start():
        with starting_processes():
            os.kill(os.getpid(), signal.SIGTERM)
            raise OSError("no process is left")

    with pytest.raises(KeyboardInterrupt):
        start()


@pytest.mark.usefixtures("stop")
def test_an_interruption_waits_until_it_insists():
    def wait():
        with signals_wait():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)  # at once: no more than one
            time.sleep(1.1)
            done.append("waited")
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
            time.sleep(5)
            done.append("waited on")

    done = []
    with pytest.raises(KeyboardInterrupt):
        wait()
    assert done == ["waited"]


@pytest.mark.parametrize("ask", ["submit", "map"])
def test_a_killed_worker_is_told_in_a_line(ask):
    def take():
        with WorkerPool(1) as pool:
            if ask == "submit":
                pool.submit(signal.raise_signal, signal.SIGKILL).result()
            else:
                list(pool.map(signal.raise_signal, [signal.SIGKILL]))

    with pytest.raises(WorkerError, match=r"^a worker process died \(out of memory\?\)$"):
        take()
