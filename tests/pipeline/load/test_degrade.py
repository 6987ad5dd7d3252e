"""Degradation compared with Pillow: bit-exact, or within the stated bounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.load.degrade import _split_weights, degrade, degrade_into, exact_products, resize_by_products


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


IMAGES = torch.zeros(2, 16, 16, 3, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("arguments", "kind", "says"),
    [
        (
            (IMAGES.float(), 8),
            TypeError,
            "images is a Tensor of float32 and shape (2, 16, 16, 3), expected a Tensor of",
        ),
        ((IMAGES.permute(0, 3, 1, 2), 8), TypeError, "images is a Tensor of uint8 and shape (2, 3, 16, 16), expected"),
        ((IMAGES[:, :8], 8), TypeError, "images is a Tensor of uint8 and shape (2, 8, 16, 3), expected a Tensor of"),
        ((IMAGES[..., 0], 8), TypeError, "images is a Tensor of uint8 and shape (2, 16, 16), expected a Tensor of"),
        ((IMAGES[..., :1], 8), TypeError, "images is a Tensor of uint8 and shape (2, 16, 16, 1), expected a Tensor of"),
        ((IMAGES[..., 0, 0, 0], 8), TypeError, "images is a Tensor of uint8 and shape (2,), expected a Tensor of"),
        ((IMAGES.numpy(), 8), TypeError, "images is a ndarray of uint8 and shape (2, 16, 16, 3), expected a Tensor of"),
        (("a.jpg", 8), TypeError, "images is 'a.jpg', expected a Tensor of uint8 and shape (..., S, S, 3)"),
        ((IMAGES, 0), ValueError, "size is 0, expected at least 1"),
        ((IMAGES, -8), ValueError, "size is -8, expected at least 1"),
        ((IMAGES, 8.5), TypeError, "size is 8.5, expected a whole number"),
        ((IMAGES, (8, 8)), TypeError, "size is (8, 8), expected a whole number"),
        ((IMAGES, 8, "quick"), ValueError, "mode is 'quick', expected one of fast, exact"),
    ],
)
def test_wrong_arguments_say_what_was_expected(arguments, kind, says):
    with pytest.raises(kind) as error:
        degrade(*arguments)
    assert str(error.value).startswith(says)


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("shape", [(0, 16, 16, 3), (16, 16, 3), (2, 3, 16, 16, 3)])
def test_any_number_of_images_is_degraded(mode, shape):
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    degraded = degrade(images, np.int64(8), mode)
    assert degraded.shape == images.shape
    for image, one in zip(images.reshape(-1, 16, 16, 3), degraded.reshape(-1, 16, 16, 3), strict=True):
        assert torch.equal(degrade(image, 8, mode), one)


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
    with exact_products:
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


@pytest.mark.parametrize("owner", [torch.backends, torch.backends.cuda.matmul, torch.backends.mkldnn.matmul])
def test_a_precision_that_a_script_has_set_in_the_newer_way_does_not_matter_and_stays(owner):
    """torch.get_float32_matmul_precision raises then."""
    backends = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    try:
        for one in (*backends, owner):
            one.fp32_precision = "tf32" if one is owner else "none"
        before = [one.fp32_precision for one in backends]
        with exact_products:
            assert torch.get_float32_matmul_precision() == "highest"
            assert [one.fp32_precision for one in backends] == ["ieee", "ieee"]
        assert [one.fp32_precision for one in backends] == before
        assert "tf32" in before
    finally:
        torch.backends.fp32_precision = "none"
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
