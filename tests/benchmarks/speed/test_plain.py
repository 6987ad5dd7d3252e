"""The DataLoader of the baselines: its workers do not receive signals of the group and end with the block."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time

import pytest
import torch
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from benchmarks.speed.plain import plain_batches
from pipeline.executors import WorkerError


class Slow(torch.utils.data.Dataset):
    def __init__(self, seconds=0.01):
        self.seconds = seconds

    def __len__(self):
        return 40

    def __getitem__(self, number):
        time.sleep(self.seconds)
        return number


def batches(dataset=None, workers=2):
    return plain_batches(DataLoader(dataset or Slow(), 2, num_workers=workers, multiprocessing_context="fork"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_to_the_group_do_not_reach_the_workers(number):
    with batches() as found:
        workers = multiprocessing.active_children()
        assert len(workers) == 2
        for worker in workers:
            os.kill(worker.pid, number)
        assert torch.cat(list(found)).tolist() == list(range(40))


def test_the_workers_have_ended_when_an_exception_is_raised():
    def take(workers):
        with batches() as found:
            workers += multiprocessing.active_children()
            for _ in found:
                os.kill(os.getpid(), signal.SIGINT)

    workers = []
    with pytest.raises(KeyboardInterrupt) as raised:
        take(workers)
    assert raised.traceback  # which still refers to the iterator
    assert len(workers) == 2
    assert not any(worker.is_alive() for worker in workers)


def test_an_interruption_waits_for_the_batch():
    with batches(Slow(0.3), workers=1) as found:
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            next(found)
        assert time.monotonic() - began > 0.5


@pytest.mark.heavy
def test_a_worker_that_does_not_end_is_killed():
    with batches(Slow(60), workers=1):
        (worker,) = multiprocessing.active_children()
        time.sleep(0.5)  # it is in __getitem__ then
    worker.join(5)
    assert worker.exitcode == -signal.SIGKILL


def test_a_worker_is_killed_if_the_next_cannot_be_started(monkeypatch):
    started = []

    def fork():
        if started:
            raise BlockingIOError("no more processes")
        started.append(real())
        return started[0]

    real = os.fork
    monkeypatch.setattr(os, "fork", fork)
    monkeypatch.setattr(
        _MultiProcessingDataLoaderIter, "__del__", lambda _: None
    )  # PyTorch's fails on a half-built object
    with pytest.raises(BlockingIOError), batches():
        pytest.fail("the block must not be entered")
    assert len(started) == 1
    assert not multiprocessing.active_children()


def test_a_killed_worker_is_a_worker_error():
    def take():
        with batches() as taken:
            next(taken)
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, signal.SIGKILL)
            list(taken)

    with pytest.raises(WorkerError, match=r"^a worker process of a DataLoader died \(out of memory\?\)$"):
        take()


def test_an_interruption_while_the_workers_start_ends_them(monkeypatch):
    started = []

    def interrupted(loader):
        found = real(loader)
        started.extend(multiprocessing.active_children())
        os.kill(os.getpid(), signal.SIGINT)
        return found

    def take():
        with batches():
            pytest.fail("the block must not be entered")

    real = DataLoader.__iter__
    monkeypatch.setattr(DataLoader, "__iter__", interrupted)
    with pytest.raises(KeyboardInterrupt) as raised:
        take()
    assert raised.traceback  # which still refers to the iterator
    assert len(started) == 2
    assert not any(worker.is_alive() for worker in started)
