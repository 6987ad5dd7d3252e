"""LoaderWait: on a GPU, only the time in which the GPU has nothing else to do is a wait."""

from __future__ import annotations

import pytest
import torch

from model.training.waiting import LoaderWait


class FakeGpu:
    """A clock of the host and one of a GPU, which works off what is queued; ms."""

    def __init__(self):
        self.host, self.busy_until, self.synchronized = 0.0, 0.0, 0

    def queue(self, work):
        self.busy_until = max(self.busy_until, self.host) + work

    def event(self, enable_timing):
        assert enable_timing
        return FakeEvent(self)


class FakeEvent:
    def __init__(self, gpu):
        self.gpu, self.at = gpu, None

    def record(self, stream):
        assert stream == "stream of cuda:0"
        self.at = max(self.gpu.busy_until, self.gpu.host)

    def synchronize(self):
        self.gpu.synchronized += 1

    def elapsed_time(self, other):
        return other.at - self.at


@pytest.fixture
def gpu(monkeypatch):
    gpu = FakeGpu()
    monkeypatch.setattr(torch.cuda, "Event", gpu.event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    return gpu


def test_a_host_that_waits_while_the_gpu_works_loses_nothing(gpu):
    wait = LoaderWait(torch.device("cuda", 0))
    for _ in range(3):
        with wait.measured():
            gpu.host += 30  # decoding
        gpu.queue(40)  # the step
    assert gpu.synchronized == 0
    assert wait.take() == pytest.approx(0.030)  # before the first step


def test_the_gpu_waits_for_batches_that_come_late_and_for_what_the_loader_queues(gpu):
    wait = LoaderWait(torch.device("cuda", 0))
    for _ in range(4):
        with wait.measured():
            gpu.host += 50
            gpu.queue(5)  # degradation
        gpu.queue(35)
    assert wait.take() == pytest.approx(0.055 + 3 * 0.015)  # a step ends at 90 ms, the next batch is ready at 105
    assert wait.take() == 0
