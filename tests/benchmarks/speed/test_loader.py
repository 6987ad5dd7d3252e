"""The baseline and the floor of the loader do the same work as the loader."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.speed.baselines import load_views
from benchmarks.speed.faces import Setup
from benchmarks.speed.loader import SIZES, read_batches, start_decoder, time_loader, write_files
from pipeline.load.degrade import degrade
from shards.index import ShardIndex, ShardReader


@pytest.fixture
def index(shard_set):
    return ShardIndex(shard_set)


def test_every_crop_is_a_file(index, tmp_path):
    identities = write_files(index, tmp_path / "crops")
    assert [len(paths) for paths in identities] == index.count.tolist()
    assert all(Image.open(path).size == (128, 128) for paths in identities for path in paths)


def test_the_baseline_degrades_as_the_loader_does(index, tmp_path):
    identities = write_files(index, tmp_path / "crops")
    for paths, normalised in itertools.product(identities[:3], (False, True)):
        images = load_views(SIZES, normalised, paths[:1])  # one image: only its flip is random
        assert images.shape == ((4, 3, 128, 128) if normalised else (4, 128, 128, 3))
        crop = torch.from_numpy(np.array(Image.open(paths[0]).convert("RGB")))
        for image, size in zip(images, SIZES, strict=True):
            pixels = ((image * 0.5 + 0.5) * 255).round().to(torch.uint8).permute(1, 2, 0) if normalised else image
            assert any(torch.equal(pixels, degrade(shown, size)) for shown in (crop, crop.flip(1)))


def test_batches_are_decoded_in_turn(index):
    batches = read_batches(index, 3, 2)
    rows = np.random.default_rng(0).integers(0, len(index), (2, 3))
    pipe = start_decoder(batches, 3)
    with ShardReader(index) as reader:
        for expected in (*rows, rows[0]):
            (decoded,) = pipe.run()
            for image, row in zip(np.array(decoded.as_tensor()), expected, strict=True):
                path = index.root / "image.jpg"
                path.write_bytes(reader.image(int(row)).rstrip(b"\0"))
                assert np.abs(image.astype(int) - np.array(Image.open(path).convert("RGB"))).max() <= 3


@pytest.mark.heavy
def test_a_quick_run_times_all_contenders(tmp_path):
    (timing,) = time_loader(Setup(root=None, scratch=tmp_path, rounds=1, quick=True))
    assert [row.role for row in timing.rows.values()] == [
        "baseline",
        "baseline",
        "ours",
        "ours",
        "ours",
        "ours",
        "floor",
    ]
    for name, row in timing.rows.items():
        assert timing.ratios(name, "baseline") is not None
        assert (timing.ratios(name, "floor") is None) == (row.gives != "uint8")
    assert timing.facts["identities in a batch"] == "16"
