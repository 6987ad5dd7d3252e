"""Degradation compared with Pillow: bit-exact, or within the stated bounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.load.degrade import _split_weights, degrade, degrade_into, resize_by_products


def pillow(image, size):
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))


def pillow_degraded(image, size):
    return pillow(pillow(image, size), len(image))


@pytest.fixture(scope="module")
def images(painted):
    faces = np.stack([pillow(shots[0][0][:120], 128) for shots in painted.values()])
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (2, 128, 128, 3), dtype=np.uint8)
    extremes = rng.choice([0, 255], (2, 128, 128, 3)).astype(np.uint8)
    return np.concatenate([faces, noise, extremes])


@pytest.mark.parametrize("size", [*range(2, 33), 37, 64, 100, 127, 128])
def test_exact_equals_pillow(images, size):
    ours = degrade(torch.from_numpy(images), size, "exact").numpy()
    theirs = np.stack([pillow_degraded(image, size) for image in images])
    assert ours.shape == images.shape
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("size", [8, 12, 16, 20])
def test_fast_is_close_on_faces(images, size):
    faces = images[:9]
    difference = np.abs(
        degrade(torch.from_numpy(faces), size, "fast").numpy().astype(int)
        - np.stack([pillow_degraded(face, size) for face in faces])
    )
    assert difference.max() <= 3
    assert (difference > 0).mean() < 0.01


def products_degraded(images, size):
    return resize_by_products(resize_by_products(images, size), images.shape[1])


@pytest.mark.parametrize("size", [2, 3, 5, 8, 12, 16, 20, 31, 37, 64, 100, 127])
def test_products_equal_pillow(images, size):
    """The computation of a GPU, on the CPU: integer arithmetic gives the same result on both."""
    theirs = np.stack([pillow_degraded(image, size) for image in images])
    assert np.array_equal(products_degraded(torch.from_numpy(images), size), theirs)


@settings(max_examples=25)
@given(st.integers(4, 150), st.integers(2, 150), st.integers(0, 1000))
def test_products_equal_pillow_for_any_sizes(source, target, seed):
    image = np.random.default_rng(seed).integers(0, 256, (source, source, 3), dtype=np.uint8)
    assert np.array_equal(resize_by_products(torch.from_numpy(image[None]), target)[0].numpy(), pillow(image, target))


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("size", [8, 12, 37, 127, 128])
def test_flipping_the_small_image_equals_flipping_the_large_one(images, size, mode):
    batch, flips = torch.from_numpy(images), torch.arange(len(images)) % 3 == 0
    out = torch.zeros_like(batch)
    kept = batch.clone()
    degrade_into(out, batch, size=size, flips=flips, mode=mode)
    assert torch.equal(batch, kept)
    expected = degrade(torch.where(flips[:, None, None, None], batch.flip(2), batch), size, mode)
    assert torch.equal(out, expected)


def test_leading_dimensions_are_kept(images):
    batch = torch.from_numpy(images[:6]).reshape(2, 3, 128, 128, 3)
    assert torch.equal(degrade(batch, 8).flatten(0, 1), degrade(batch.flatten(0, 1), 8))


def test_full_size_changes_nothing(images):
    batch = torch.from_numpy(images)
    assert degrade(batch, 128) is batch


def test_exactness_does_not_depend_on_the_matmul_precision_of_training(images):
    expected = products_degraded(torch.from_numpy(images), 8)
    torch.set_float32_matmul_precision("medium")
    try:
        assert torch.equal(products_degraded(torch.from_numpy(images), 8), expected)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_the_widest_range_of_sizes_computes_each_weight_matrix_once():
    """With a cache of 64 matrices, a view of 8 to 128 px evicted each matrix before its next use."""
    tiny = torch.zeros((1, 128, 128, 3), dtype=torch.uint8)
    _split_weights.cache_clear()
    for _ in range(2):
        for size in range(8, 128):
            products_degraded(tiny, size)
    found = _split_weights.cache_info()
    assert (found.misses, found.hits) == (240, 240)
    assert found.maxsize is not None  # bounded, however many devices there are
