"""The DataLoader of the baselines: its workers leave Ctrl-C to us and are gone when we are done."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

import pytest
import torch
from torch.utils.data import DataLoader

from benchmarks.speed.plain import plain_batches
from pipeline.workers import WorkerError


class Slow(torch.utils.data.Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, number):
        time.sleep(0.01)
        return number


def batches():
    return plain_batches(DataLoader(Slow(), 2, num_workers=2, multiprocessing_context="fork"))


def test_ctrl_c_does_not_reach_the_workers():
    with batches() as found:
        workers = multiprocessing.active_children()
        assert len(workers) == 2
        for worker in workers:
            os.kill(worker.pid, signal.SIGINT)
        assert torch.cat(list(found)).tolist() == list(range(40))


def test_the_workers_are_gone_before_an_exception_is_told():
    def take(workers):
        with batches() as found:
            workers += multiprocessing.active_children()
            for _ in found:
                os.kill(os.getpid(), signal.SIGINT)

    workers = []
    with pytest.raises(KeyboardInterrupt) as told:
        take(workers)
    assert told.traceback  # which still refers to the iterator
    assert len(workers) == 2
    assert not any(worker.is_alive() for worker in workers)


def test_a_killed_worker_is_told_in_a_line():
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
            pytest.fail("the block is not to be entered")

    real = DataLoader.__iter__
    monkeypatch.setattr(DataLoader, "__iter__", interrupted)
    with pytest.raises(KeyboardInterrupt) as told:
        take()
    assert told.traceback  # which still refers to the iterator
    assert len(started) == 2
    assert not any(worker.is_alive() for worker in started)
