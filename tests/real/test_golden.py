"""The reference's outputs on real faces, from the folder that ``LRFR_GOLDEN`` names."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.scoring.metrics import rank_gallery
from benchmarks.scoring.vectors import unit_length
from model.backbones import build_backbone
from model.inputs import normalise
from pipeline.load.degrade import degrade, resize
from tests.golden_weights import golden_state

GOLDEN = Path(os.environ["LRFR_GOLDEN"])


def figures(name):
    return np.load(GOLDEN / f"{name}.npz", allow_pickle=False)


@pytest.mark.parametrize("size", [8, 12, 16, 20, 37, 64, 100])
def test_exact_degradation_is_bit_equal(size):
    golden = figures("degrade")
    images = torch.from_numpy(golden["hr"])
    assert np.array_equal(resize(images, size, "exact"), golden[f"down{size}"])
    assert np.array_equal(degrade(images, size, "exact"), golden[f"up{size}"])
    fast = np.abs(degrade(images, size, "fast").numpy().astype(int) - golden[f"up{size}"])
    assert fast.max() <= 3
    assert (fast > 0).mean() < 0.01


@pytest.mark.parametrize("depth", [4, 20, 64])
def test_embeddings_equal_the_reference(depth):
    golden = figures("backbone")
    backbone = build_backbone(f"spherenet{depth}").eval()
    backbone.load_state_dict(golden_state({name: value.shape for name, value in backbone.state_dict().items()}))
    with torch.inference_mode():
        embeddings = backbone(normalise(torch.from_numpy(golden["input_uint8"]))).numpy()
    expected = golden[f"spherenet{depth}"]
    assert np.abs(embeddings - expected).max() <= 1e-4 * np.abs(expected).max()


def test_rank_1_equals_the_reference():
    golden = figures("metrics")
    gallery, probes = unit_length(golden["gallery"]), unit_length(golden["probes"])
    ids = np.arange(len(gallery))
    found = rank_gallery(probes, np.arange(len(probes)) % len(gallery), gallery, ids)
    assert (found.rank == 1).mean() == golden["rank1"]
