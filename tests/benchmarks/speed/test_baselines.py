"""The DataLoader of the baselines: its workers end with the loop, and nothing in the caller changes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time

import cv2
import pytest
import torch
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from benchmarks.speed.baselines import map_batches
from pipeline.executors import WorkerError
from pipeline.signals import SIGNALS


def slowly(seconds):
    def work(number):
        time.sleep(seconds)
        return number

    return work


def batches(seconds=0.01, workers=2, draws=None):
    return map_batches(slowly(seconds), range(40), 2, workers, draws)


def test_all_items_come_in_order_or_some_are_drawn():
    assert torch.cat(list(batches(0))).tolist() == list(range(40))
    drawn = torch.cat(list(batches(0, draws=100))).tolist()
    assert len(drawn) == 100
    assert set(drawn) <= set(range(40))
    assert drawn[:40] != list(range(40))


def test_the_caller_is_as_before():
    before = cv2.getNumThreads(), signal.getsignal(signal.SIGCHLD), signal.pthread_sigmask(signal.SIG_BLOCK, [])
    cv2.setNumThreads(3)
    loop = batches()
    next(loop)
    during = cv2.getNumThreads(), signal.getsignal(signal.SIGCHLD), signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert during == (3, *before[1:])
    list(loop)
    assert cv2.getNumThreads() == 3
    cv2.setNumThreads(before[0])


@pytest.mark.parametrize("number", SIGNALS)
def test_signals_to_the_group_do_not_reach_the_workers(number):
    loop = batches()
    first = next(loop)
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for worker in workers:
        os.kill(worker.pid, number)
    assert torch.cat([first, *loop]).tolist() == list(range(40))


def test_the_workers_have_ended_when_the_loop_raises():
    def loop(workers):
        for number, _ in enumerate(batches()):
            workers.extend(multiprocessing.active_children())
            if number == 2:
                raise ValueError("no third batch")

    workers = []
    with pytest.raises(ValueError, match="no third batch") as raised:
        loop(workers)
    assert raised.traceback  # which keeps the frames of the loop
    assert len(set(workers)) == 2
    assert not any(worker.is_alive() for worker in workers)


@pytest.mark.parametrize("while_waiting", [False, True])
def test_the_workers_have_ended_when_the_loop_is_interrupted(while_waiting):
    def loop(workers):
        for number, _ in enumerate(batches(0.4 if while_waiting else 0.01)):
            workers.extend(multiprocessing.active_children())
            if number == 2 and while_waiting:
                threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
            elif number == 2:
                os.kill(os.getpid(), signal.SIGINT)

    workers = []
    with pytest.raises(KeyboardInterrupt) as raised:
        loop(workers)
    assert raised.traceback  # which keeps the frames of the loop
    assert len(set(workers)) == 2
    assert not any(worker.is_alive() for worker in workers)


def test_an_interruption_while_the_workers_start_ends_them(monkeypatch):
    started = []

    def interrupted(loader):
        found = real(loader)
        started.extend(multiprocessing.active_children())
        signal.raise_signal(signal.SIGINT)  # to this thread: os.kill lets another one take it, a moment later
        return found

    real = DataLoader.__iter__
    monkeypatch.setattr(DataLoader, "__iter__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(batches())
    assert len(started) == 2
    assert not any(worker.is_alive() for worker in started)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # PyTorch's, of a half-built iterator
def test_a_worker_is_killed_if_the_next_cannot_be_started(monkeypatch):
    started = []

    def fork():
        if started:
            raise BlockingIOError("no more processes")
        started.append(real())
        return started[0]

    real = os.fork
    monkeypatch.setattr(os, "fork", fork)
    monkeypatch.setattr(_MultiProcessingDataLoaderIter, "__del__", lambda _: None)
    with pytest.raises(BlockingIOError):
        next(batches())
    assert len(started) == 1
    assert not multiprocessing.active_children()


@pytest.mark.heavy
def test_a_killed_worker_is_a_worker_error():
    loop = batches()
    next(loop)
    for worker in multiprocessing.active_children():
        os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match=r"^a worker process of a DataLoader died \(out of memory\?\)$"):
        list(loop)


def test_without_shared_memory_a_dataloader_is_a_worker_error(monkeypatch):
    def absent():
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(multiprocessing, "Lock", absent)
    with pytest.raises(
        WorkerError, match=r"^/dev/shm: No such file or directory; the DataLoader .* needs shared memory"
    ):
        list(map_batches(abs, [1, 2], 1, 1))
