"""The stage for a GPU, as far as a CPU can run it."""

from __future__ import annotations

import functools
import weakref

import pytest
import torch

from benchmarks.speed import gpu, step
from benchmarks.speed.faces import Setup
from benchmarks.speed.gpu import peak_memory, time_decoding, time_degradation, time_loaders, training_runs
from shards.index import ShardIndex


@pytest.mark.heavy
def test_the_parts_that_a_cpu_can_run(shard_set, tmp_path):
    setup = Setup(root=None, scratch=tmp_path, rounds=1, quick=True)
    timing = time_decoding(setup, ShardIndex(shard_set), "cpu")
    assert list(timing.rows) == ["CPU decodes, padded feed", "CPU decodes, list feed"]
    (timing,) = time_degradation(setup, "cpu")
    assert any(name.startswith("products, highest: 0 of ") for name in timing.rows)
    timing = time_loaders(setup, ShardIndex(shard_set), "cpu", threads=(1, 2))
    assert [name.partition(", ")[2] for name in timing.rows] == ["", "", "128, 8-32 px", "128, 8-32 px as surveillance"]


class CountedMemory:
    """Replaces the counters of ``torch.cuda``."""

    def __init__(self, monkeypatch):
        self.now = self.peak = 0
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", self.restart)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: self.peak)

    def add(self, size):
        self.now += size
        self.peak = max(self.peak, self.now)

    def restart(self):
        self.peak = self.now


def test_peak_memory_does_not_include_other_contenders(monkeypatch):
    memory = CountedMemory(monkeypatch)

    class Network:
        def __init__(self, size):
            self.size, self.cycle = size << 30, self  # only the garbage collector finds it
            memory.add(self.size)

        def __call__(self):
            memory.add(self.size)
            memory.add(-self.size)

        def __del__(self):
            memory.add(-self.size)

    facts = peak_memory((str(size), Network(size), 1) for size in (4, 1, 2))
    assert facts == {
        "PyTorch's peak memory, 4": "8.0 GiB",
        "PyTorch's peak memory, 1": "2.0 GiB",
        "PyTorch's peak memory, 2": "4.0 GiB",
    }


def test_networks_are_built_one_at_a_time_for_their_memory_and_shared_for_their_time(shard_set, monkeypatch):
    CountedMemory(monkeypatch)
    monkeypatch.setitem(gpu._BATCHES, "cpu", 3)
    built, alive, counts = [], weakref.WeakSet(), []

    class Network:
        def __init__(self, kind):
            assert not alive or sharing
            built.append(kind)
            alive.add(self)

        def __call__(self, images, labels):
            assert images.shape == (4, 2, 128, 128, 3)
            assert labels.shape == (2,)
            counts.append(len(alive))

    runs = functools.partial(training_runs, ShardIndex(shard_set), kinds=("fp32", "bf16"), batch=2, device="cpu")
    sharing = False
    facts = peak_memory(runs(Network))
    steps = [f"{way}, {kind}" for kind in ("fp32", "bf16") for way in ("step alone", "loader and step")]
    names = ["plain step, fp32", *steps]
    assert list(facts) == [f"PyTorch's peak memory, {name}" for name in names]
    assert built == ["plain step, fp32", "fp32", "fp32", "bf16", "bf16"]
    assert counts == [1] * 5 * 3
    built.clear()
    sharing = True
    timed = list(runs(functools.cache(Network)))
    assert [name for name, _, _ in timed] == names
    assert built == ["plain step, fp32", "fp32", "bf16"]


def test_a_step_in_tf32_leaves_pytorchs_settings_as_they_were():
    found = []

    def update(images, labels):
        found.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))

    for tf32 in (True, False):
        step.in_precision(update, tf32=tf32)(None, None)
    assert found == [("high", True), ("highest", False)]
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == ("highest", True)
