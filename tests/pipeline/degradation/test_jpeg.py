"""JPEG on the device, compared with libjpeg: what entropy coding adds is lossless."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.degradation import jpeg_compression as jpeg
from pipeline.degradation.jpeg_compression import compress_

COUNT = 24


def pictures(size):
    """(N, size, size, 3) uint8 Y, Cb, Cr: smooth ones with some noise, and two with the most contrast there is."""
    rng = np.random.default_rng(size)
    rough = rng.normal(0, 1, (COUNT, size, size, 3))
    smooth = np.stack([cv2.GaussianBlur(one, (0, 0), 2.0) for one in rough])
    images = np.clip(128 + smooth / smooth.std() * 40 + rough * 4, 0, 255).astype(np.uint8)
    images[0], images[1] = rng.choice([0, 255], (2, size, size, 1))
    return images


def by_pillow(image, quality, row, column):
    """The image within a larger picture, at a row and column of its grid, compressed and decompressed."""
    size = len(image)
    side = -(-(size + 16) // 16) * 16 + 16
    picture = np.pad(image, ((row, side - size - row), (column, side - size - column), (0, 0)), "edge")
    file = io.BytesIO()
    Image.frombytes("YCbCr", (side, side), picture.tobytes()).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    decoded = Image.open(file)
    decoded.draft("YCbCr", None)
    return np.asarray(decoded)[row:, column:][:size, :size]


def compressed(images, quality, rows, columns):
    planes = torch.from_numpy(images).float().permute(3, 0, 1, 2).contiguous()
    planes[1:] -= 128
    qualities = torch.as_tensor(np.broadcast_to(quality, len(images)).copy())
    offsets = {"row_offsets": torch.as_tensor(rows), "column_offsets": torch.as_tensor(columns)}
    compress_(planes, quality=qualities, **offsets)
    planes[1:] += 128
    return planes.permute(1, 2, 3, 0).numpy()


@pytest.mark.parametrize("size", [8, 16, 24, 32])
@pytest.mark.parametrize("quality", [1, 10, 30, 50, 75, 90, 100])
def test_pixels_are_those_of_libjpeg_but_for_rounding(size, quality):
    """Differences are those of a coefficient on the other side of a tie, which libjpeg's own rounding decides.

    Largest ones found: 0.94 levels on average, more than 2 levels in 8.4 % of the values, 71 levels in one (quality 10,
    black and white noise). Both lose the same: the deviation from the original differs by at most 0.6 %.
    """
    images = pictures(size)
    rows, columns = np.random.default_rng(quality).integers(0, 16, (2, COUNT))
    ours = compressed(images, quality, rows, columns)
    theirs = np.stack([by_pillow(*one) for one in zip(images, [quality] * COUNT, rows, columns, strict=True)])
    difference = np.abs(ours - theirs)
    assert difference.max() < 72
    assert difference.mean((0, 1, 2)).max() < 1.0
    assert (difference > 2).mean() < 0.09
    assert (ours - images).std() == pytest.approx((theirs.astype(float) - images).std(), rel=0.01)
    assert np.array_equal(ours, ours.round())
    assert 0 <= ours.min() <= ours.max() <= 255


def test_a_quality_and_a_place_of_the_grid_for_each_image():
    images = pictures(16)
    rng = np.random.default_rng(0)
    quality, rows, columns = rng.integers(1, 101, COUNT), *rng.integers(0, 16, (2, COUNT))
    together = compressed(images, quality, rows, columns)
    for index in range(COUNT):
        one = slice(index, index + 1)
        assert np.array_equal(compressed(images[one], quality[one], rows[one], columns[one])[0], together[index])
    assert not np.array_equal(compressed(images, quality, (rows + 3) % 16, columns), together)


@pytest.mark.parametrize(("transforms", "side"), [(jpeg._luma_transforms, 32), (jpeg._chroma_transforms, 24)])
def test_sums_are_exact(transforms, side):
    """Float64 has so many bits that no sum is rounded: float32 gives the same, so no order of additions matters."""
    made = transforms(side, torch.device("cpu"))
    doubles = jpeg._Transforms(**{name: values.double() for name, values in vars(made).items()})
    rng = np.random.default_rng(1)
    plane = torch.as_tensor(rng.choice([-128.0, 127.0], (40, side, side)), dtype=torch.float32)
    exact = plane.double()
    drawn = [torch.as_tensor(rng.integers(0, most, 40)) for most in (101, len(made.rows), len(made.rows))]
    jpeg._round_trip_(plane, made, *drawn)
    jpeg._round_trip_(exact, doubles, *drawn)
    assert torch.equal(plane.double(), exact)
