"""The loader's yardsticks do the same work as the loader."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.speed.device import time_decoding, time_degradation
from benchmarks.speed.loader import PlainFaces, bare_decoding, time_loader, write_files
from pipeline.degrade import degrade
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
    faces = PlainFaces([paths[:1] for paths in identities])  # one image: what is drawn is known but for its flip
    for identity in range(3):
        images, label = faces[identity]
        assert label == identity
        assert images.shape == (4, 3, 128, 128)
        crop = torch.from_numpy(np.array(Image.open(identities[identity][0]).convert("RGB")))
        for image, size in zip(images, (128, 8, 12, 16), strict=True):
            pixels = ((image * 0.5 + 0.5) * 255).round().to(torch.uint8).permute(1, 2, 0)
            assert any(torch.equal(pixels, degrade(shown, size)) for shown in (crop, crop.flip(1)))


def test_bare_decoding_runs(index):
    bare_decoding(index, 4, 3, 1)()


@pytest.mark.heavy
def test_a_quick_run_times_all_contenders(tmp_path):
    (timing,) = time_loader(root=None, folder=tmp_path, rounds=1, quick=True)
    assert list(timing.roles.values()) == ["baseline", "ours", "ours", "floor"]
    assert timing.facts["identities in a batch"] == "16"


@pytest.mark.heavy
def test_the_parts_of_a_gpu_run_that_a_cpu_has(tmp_path):
    (timing,) = time_decoding(root=None, folder=tmp_path, rounds=1, quick=True, device="cpu", threads=2)
    assert list(timing.seconds) == ["CPU decodes, padded feed", "CPU decodes, list feed"]
    (timing,) = time_degradation(rounds=1, quick=True, device="cpu")
    assert any(name.startswith("products, highest: 0 of ") for name in timing.seconds)
