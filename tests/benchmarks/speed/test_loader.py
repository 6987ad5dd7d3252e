"""The loader's yardsticks do the same work as the loader."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.speed.device import peak_memory, time_decoding, time_degradation
from benchmarks.speed.loader import PlainFaces, bare_decoding, time_loader, write_files
from model.inputs import normalise
from pipeline.load.degrade import degrade
from shards.index import ShardIndex


@pytest.fixture
def index(shard_set):
    return ShardIndex(shard_set)


def test_every_crop_is_a_file(index, tmp_path):
    identities = write_files(index, tmp_path / "crops")
    assert [len(paths) for paths in identities] == index.count.tolist()
    assert all(Image.open(path).size == (128, 128) for paths in identities for path in paths)


def test_the_plain_images_are_degraded_as_ours(index, tmp_path):
    identities = write_files(index, tmp_path / "crops")
    known = [paths[:1] for paths in identities]  # one image: what is drawn is known but for its flip
    for identity, normalised in itertools.product(range(3), (False, True)):
        images, label = PlainFaces(known, normalised=normalised)[identity]
        assert label == identity
        assert images.shape == ((4, 3, 128, 128) if normalised else (4, 128, 128, 3))
        crop = torch.from_numpy(np.array(Image.open(identities[identity][0]).convert("RGB")))
        for image, size in zip(images, (128, 8, 12, 16), strict=True):
            pixels = ((image * 0.5 + 0.5) * 255).round().to(torch.uint8).permute(1, 2, 0) if normalised else image
            assert any(torch.equal(pixels, degrade(shown, size)) for shown in (crop, crop.flip(1)))


def test_bare_decoding_runs(index):
    bare_decoding(index, 4, 3, 1)()


@pytest.mark.heavy
def test_a_quick_run_times_all_contenders(tmp_path):
    (timing,) = time_loader(root=None, folder=tmp_path, rounds=1, quick=True, normalise=normalise)
    assert list(timing.roles.values()) == ["baseline", "baseline", "ours", "ours", "ours", "floor"]
    for name, gives in timing.gives.items():
        assert timing.ratios(name, "baseline") is not None
        assert (timing.ratios(name, "floor") is None) == (gives != "uint8")
    assert timing.facts["identities in a batch"] == "16"


@pytest.mark.heavy
def test_the_parts_of_a_gpu_run_that_a_cpu_has(tmp_path):
    (timing,) = time_decoding(root=None, folder=tmp_path, rounds=1, quick=True, device="cpu", threads=2)
    assert list(timing.seconds) == ["CPU decodes, padded feed", "CPU decodes, list feed"]
    (timing,) = time_degradation(rounds=1, quick=True, device="cpu")
    assert any(name.startswith("products, highest: 0 of ") for name in timing.seconds)


class CountedMemory:
    """As a GPU's: what is allocated, and the most of it since the count began."""

    def __init__(self):
        self.now = self.most = 0

    def add(self, size):
        self.now += size
        self.most = max(self.most, self.now)

    def restart(self):
        self.most = self.now

    def peak(self):
        return self.most


def test_the_memory_of_a_way_is_its_own():
    memory = CountedMemory()

    class Network:
        def __init__(self, size):
            self.size, self.itself = size, self  # only the garbage collector finds it
            memory.add(size)

        def __del__(self):
            memory.add(-self.size)

    def way(size):
        network = Network(size << 30)
        return lambda: memory.add(network.size) or memory.add(-network.size)

    ways = {str(size): lambda size=size: way(size) for size in (4, 1, 2)}
    assert list(peak_memory(ways, memory).values()) == ["8.0 GiB", "2.0 GiB", "4.0 GiB"]
