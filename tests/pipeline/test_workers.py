"""Worker processes leave Ctrl-C to the one that started them, and end when it says so."""

from __future__ import annotations

import os
import signal
import time

import pytest

from pipeline.workers import WorkerPool, starting_processes


def interrupt(*pids):
    for pid in pids:
        os.kill(pid, signal.SIGINT)


def test_a_worker_takes_no_notice_of_ctrl_c_from_its_first_moment_on():
    with WorkerPool(1) as pool:
        future = pool.submit(os.getpid)
        (pid,) = pool._processes
        interrupt(pid)  # which is still importing
        assert future.result() == pid
        interrupt(pid)
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_amid_a_start_waits_for_its_end(number):
    def stop(number, frame):
        raise KeyboardInterrupt

    def start():
        with starting_processes():
            os.kill(os.getpid(), number)
            done.append("started")

    before, done = signal.signal(number, stop), []
    try:
        with pytest.raises(KeyboardInterrupt):
            start()
        assert signal.getsignal(number) is stop
    finally:
        signal.signal(number, before)
    assert done == ["started"]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
