"""Kernels of resizing, blur and noise."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from pipeline.degradation.kernels import (
    BLURS,
    NOISE_VALUES,
    WEIGHT,
    blur_bank,
    gaussian,
    low_pass,
    motion,
    noise_bank,
    resampling,
)
from pipeline.degradation.settings import KERNELS, Round

CPU = torch.device("cpu")
PILLOW = {"area": Image.Resampling.BOX, "linear": Image.Resampling.BILINEAR, "cubic": Image.Resampling.BICUBIC}


def matrix(name, source, target, rows, columns):
    kernel = torch.tensor([KERNELS.index(name)])
    return resampling(kernel, source, target, rows=rows, columns=columns)[0]


@pytest.mark.parametrize("name", PILLOW)
@pytest.mark.parametrize(("source", "target"), [(48, 8), (48, 11), (48, 31), (8, 48), (13, 48), (30, 30)])
def test_resizing_is_that_of_pillow(name, source, target):
    image = np.random.default_rng(source).integers(60, 196, (source, source), dtype=np.uint8)
    theirs = np.asarray(Image.fromarray(image).resize((target, target), PILLOW[name])).astype(float)
    weights = matrix(name, source, target, target, source) / WEIGHT
    ours = (weights @ torch.from_numpy(image).float() @ weights.T).clamp(0, 255).numpy()
    assert np.abs(ours - theirs).max() < 1.6
    assert np.abs(ours - theirs).mean() < 0.6


@pytest.mark.parametrize("name", KERNELS)
def test_a_matrix_keeps_the_brightness_and_repeats_its_edge(name):
    weights = matrix(name, 20, 12, 16, 24)
    assert weights.shape == (16, 24)
    assert (weights.sum(1) - WEIGHT).abs().max() <= 12
    assert torch.equal(weights[12:], weights[11:12].expand(4, -1))
    assert (weights[:, 20:] == 0).all()
    assert torch.equal(weights, weights.round())
    assert weights.abs().sum(1).max() < 1.5 * WEIGHT  # so that sums of 1,020 quarters of a level stay below 2**24


@pytest.mark.parametrize("name", KERNELS)
def test_nothing_changes_at_the_same_size(name):
    """So a view of one size leaves out the resize between two rounds."""
    for size in (8, 16, 24, 127):
        assert torch.equal(matrix(name, size, size, size, size), WEIGHT * torch.eye(size))


def test_nearest_takes_single_pixels():
    weights = matrix("nearest", 48, 16, 16, 48)
    assert ((weights == WEIGHT).sum(1) == 1).all()


@pytest.mark.parametrize("kind", ["gaussian", "anisotropic", "motion", "sinc"])
def test_a_bank_of_blurs_is_whole_numbers_that_sum_to_one(kind):
    bank = blur_bank(dataclasses.replace(Round(), **{kind: 1.0}), CPU)
    assert bank.shape == (BLURS, 7, 7)
    assert torch.equal(bank * 4096, (bank * 4096).round())
    assert torch.equal(bank.sum((1, 2)), torch.ones(BLURS))
    assert bank.abs().sum((1, 2)).max() < 4  # so that sums of 1,020 quarters of a level stay below 2**24
    assert len({one.numpy().tobytes() for one in bank}) > BLURS / 2
    assert ((bank < 0).any().item()) == (kind == "sinc")


def test_a_bank_draws_each_kind_as_often_as_it_says():
    none = blur_bank(Round(), CPU)
    assert (none == none[0]).all()
    assert none[0, 3, 3] == 1
    bank = blur_bank(Round(gaussian=0.25, sinc=0.25), CPU)
    assert abs((bank == none[0]).all((1, 2)).float().mean() - 0.5) < 0.06
    assert abs((bank < 0).any(2).any(1).float().mean() - 0.25) < 0.06


def test_closed_forms():
    theirs = cv2.getGaussianKernel(7, 0.9)
    ours = gaussian(0.9, 0.9, 0.3)
    assert np.allclose(ours / ours.sum(), theirs @ theirs.T, atol=1e-6)
    along = motion(np.array(4.0), np.array(0.0))
    assert np.allclose(along[3, 2:5] / along[3, 3], 1, atol=0.01)
    assert along[1, 3] < 1e-5 * along[3, 3]
    assert np.allclose(motion(np.array(4.0), np.array(np.pi / 2)), along.T)
    spectrum = np.abs(np.fft.fft2(low_pass(np.array(1.5)), (64, 64)))
    assert spectrum[0, 4] / spectrum[0, 0] == pytest.approx(1, abs=0.15)  # 0.4 radians by px
    assert spectrum[0, 26] / spectrum[0, 0] < 0.12  # 2.6


def test_noise_is_normal_and_begins_anywhere():
    bank = noise_bank(100, CPU)
    assert bank.shape == (NOISE_VALUES, 100)
    assert torch.equal(bank[5, 7:], bank[12, :-7])
    assert torch.equal(bank[NOISE_VALUES - 1, 1:], bank[0, :-1])
    values = bank[:, 0].numpy()
    assert abs(values.mean()) < 0.01
    assert abs(values.std() - 1) < 0.01
    assert stats.kstest(values, "norm").statistic < 0.01
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.01
    assert (values[:3] * 65536).tolist() == (values[:3] * 65536).round().tolist()  # exact on every machine
