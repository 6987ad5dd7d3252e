"""Degradation: downsamples images and upsamples them again, with Pillow's bicubic filter."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, get_args

import cv2
import numpy as np
import torch
from PIL import Image

from shards.arguments import check_argument, check_whole, check_word
from shards.process_setting import ProcessSetting

Mode = Literal["fast", "exact"]

CHUNK_IMAGES = 32  # images that a CPU degrades in one call
PRECISION_BITS = 22  # of Pillow's fixed-point weights
SPLIT_BITS = 11  # weight = high * 2**11 + low: fp32 sums of 8-bit pixels times either part are integers below 2**24
CACHED_WEIGHTS = 1024  # pairs of sizes: all sizes of crops up to 512 px. Crops of 128 px have 254 pairs (17 MB).
CACHED_RANGES = 8  # of views. Weights of 8 to 32 px take 2 MB, of 2 to 127 px 33 MB, on crops of 128 px
CHUNK_EACH = 128  # images, whose float sums take 25 MB at 32 px and 100 MB at 127 px
CUBIC_A = -0.5
CUBIC_SUPPORT = 2.0


def degrade(images: torch.Tensor, size: int, mode: Mode = "exact") -> torch.Tensor:
    """Resizes square images to ``size`` px and back.

    Args:
        images: (..., S, S, 3) uint8.
        size: side of the small image, px; with ``size`` S, ``images`` is returned unchanged.
        mode: ``exact`` equals two calls of Pillow's ``resize(BICUBIC)`` bit for bit, on a CPU and on a GPU. ``fast``
            is several times faster on a CPU, and differs by at most 3 levels in under 1 % of the values; on a GPU it
            is the same as ``exact``.

    Returns:
        (..., S, S, 3) uint8.

    Raises:
        TypeError, ValueError: an argument of a wrong type, shape or value.
    """
    good = isinstance(images, torch.Tensor) and images.dtype == torch.uint8 and _is_square(images)
    check_argument(good, "images", images, "a Tensor of uint8 and shape (..., S, S, 3)")
    size = check_whole("size", size, 1)
    check_word("mode", mode, get_args(Mode))
    side = images.shape[-2]
    if size == side:
        return images
    flat = images.reshape(-1, *images.shape[-3:])
    return resize(resize(flat, size, mode), side, mode).reshape(images.shape)


def _is_square(images: torch.Tensor) -> bool:
    return images.ndim >= 3 and images.shape[-1] == 3 and images.shape[-3] == images.shape[-2] > 0


def degrade_into(out: torch.Tensor, images: torch.Tensor, *, size: int, flips: torch.Tensor, mode: Mode) -> None:
    """Degrades ``images`` and flips some of them left to right.

    The small image is flipped, which costs less. The result is the same bit for bit, because the weights are symmetric.

    Args:
        out: (N, S, S, 3) uint8, written; may be ``images``.
        images: (N, S, S, 3) uint8.
        size: side of the small image, px.
        flips: (N,) bool.
        mode: as for ``degrade``.
    """
    side = images.shape[-2]
    if size == side:
        if out.is_cuda:
            out.copy_(images)
        else:  # NumPy's copy uses one thread; torch's would compete with the decoder for cores
            np.copyto(out.numpy(), images.numpy())
        _flip(out, flips)
        return
    chunk_size = CHUNK_IMAGES if mode == "fast" and not images.is_cuda else len(images)
    for start in range(0, len(images), chunk_size):
        chunk = slice(start, start + chunk_size)
        small = resize(images[chunk], size, mode)
        _flip(small, flips[chunk])
        resize(small, side, mode, out=out[chunk])


def degrade_each(
    out: torch.Tensor, images: torch.Tensor, *, sizes: torch.Tensor, possible: range, flips: torch.Tensor
) -> None:
    """Degrades each image to a size of its own, exactly, and flips some: a fixed number of operations, none a size.

    An image of another size than the largest lies at the top left of the canvas; the rest is zero and has no weight.

    Args:
        out: (N, S, S, 3) uint8, written; may be ``images``.
        images: (N, S, S, 3) uint8.
        sizes: (N,) int64, side of each small image, px.
        possible: all sizes that an image may have, below S.
        flips: (N,) bool.
    """
    shrink, enlarge = _padded_weights(images.shape[-2], possible, images.device)
    for start in range(0, len(images), CHUNK_EACH):
        chunk = slice(start, start + CHUNK_EACH)
        where = sizes[chunk] - possible.start
        small = images[chunk]
        for weights in (shrink, enlarge):
            own = weights.index_select(0, where)
            narrow = _resample_each(own, small)
            small = _resample_each(own, narrow.transpose(1, 2)).transpose(1, 2)
        _flip(small, flips[chunk])
        out[chunk] = small


def keep_whole(out: torch.Tensor, images: torch.Tensor, *, whole: torch.Tensor, flips: torch.Tensor) -> None:
    """Writes the (N, S, S, 3) ``images`` where (N,) bool ``whole`` is set into ``out``, flipped as ``flips`` says."""
    flipped = torch.where(flips[:, None, None, None], images.flip(-2), images)
    torch.where(whole[:, None, None, None], flipped, out, out=out)


def resize(images: torch.Tensor, size: int, mode: Mode = "exact", *, out: torch.Tensor | None = None) -> torch.Tensor:
    """Resizes (N, S, S, 3) uint8 to (N, size, size, 3) uint8.

    Args:
        size: side of the result, px.
        mode: as for ``degrade``.
        out: where to write the result; None allocates it.
    """
    if out is None:
        out = images.new_empty((len(images), size, size, images.shape[-1]))
    if images.is_cuda:
        with exact_products:
            out.copy_(resize_by_products(images, size))
    elif mode == "exact":
        _resize_by_pillow(images, size, out.numpy())
    else:  # the operator behind torch.nn.functional.interpolate, which has no ``out``
        resized, planes = out.permute(0, 3, 1, 2), images.permute(0, 3, 1, 2)
        torch.ops.aten._upsample_bicubic2d_aa.out(planes, [size, size], False, None, None, out=resized)
    return out


def _flip(images: torch.Tensor, flips: torch.Tensor) -> None:
    """Flips (N, S, S, 3) images left to right in place where (N,) bool ``flips`` is set."""
    if images.is_cuda:
        images.copy_(torch.where(flips[:, None, None, None], images.flip(-2), images))
    else:
        pixels = images.numpy()
        for index in np.flatnonzero(flips.numpy()):
            cv2.flip(pixels[index], 1, dst=pixels[index])


def _resize_by_pillow(images: torch.Tensor, size: int, out: np.ndarray) -> None:
    pixels = images.numpy()

    def resize_some(indices: range) -> None:
        for index in indices:
            resized = Image.fromarray(pixels[index]).resize((size, size), Image.Resampling.BICUBIC)
            out[index] = np.asarray(resized)

    threads = torch.get_num_threads()
    list(_thread_pool(threads).map(resize_some, [range(first, len(out), threads) for first in range(threads)]))


@functools.lru_cache(maxsize=1)
def _thread_pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "degrade")


def resize_by_products(images: torch.Tensor, size: int) -> torch.Tensor:
    """``resize`` in mode ``exact`` as matrix products, on any device.

    In ``exact_products`` they equal Pillow's sums in any order, because float32 represents all their integers exactly.
    """
    weights = _split_weights(images.shape[1], size, images.device)
    narrow = _resample(weights, images)  # as Pillow: first horizontally, with rounding and clamping in between
    return _resample(weights, narrow.transpose(1, 2)).transpose(1, 2)


def _resample(weights: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Resamples the width of (N, H, W, 3) uint8 images with (2, out, W) weights, see ``_split_weights``."""
    count, height, width, channels = images.shape
    columns = images.permute(2, 0, 1, 3).reshape(width, -1).float()
    out = _rounded(weights.flatten(0, 1) @ columns, 0)
    return out.reshape(-1, count, height, channels).permute(1, 2, 0, 3)


def _resample_each(weights: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Resamples the width of (N, H, W, 3) uint8 images, each with its own of (N, 2 * out, W) weights."""
    count, height, width, channels = images.shape
    columns = images.permute(0, 2, 1, 3).reshape(count, width, -1).float()
    with exact_products:
        sums = weights @ columns
    return _rounded(sums, 1).reshape(count, -1, height, channels).transpose(1, 2)


def _rounded(sums: torch.Tensor, dim: int) -> torch.Tensor:
    """Sums with the high bits of the weights, and after them along ``dim`` those with the low bits -> uint8 pixels."""
    high, low = sums.to(torch.int32).chunk(2, dim)
    total = (high << SPLIT_BITS) + low + (1 << PRECISION_BITS - 1)
    return (total >> PRECISION_BITS).clamp_(0, 255).to(torch.uint8)


_BACKENDS = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul  # type: ignore[attr-defined]


def _precisions() -> tuple[str, list[str]]:
    of_backends = [one.fp32_precision for one in _BACKENDS]
    try:
        return torch.get_float32_matmul_precision(), of_backends
    except RuntimeError:  # it does not answer where a script has set a backend alone
        return "highest", of_backends


def _restore_precisions(before: tuple[str, list[str]]) -> None:
    precision, of_backends = before
    torch.set_float32_matmul_precision(precision)
    for backend, value in zip(_BACKENDS, of_backends, strict=True):
        backend.fp32_precision = value


exact_products = ProcessSetting(_precisions, lambda: torch.set_float32_matmul_precision("highest"), _restore_precisions)
"""Within ``with exact_products``, float32 products are not computed in TF32 or bf16, whose bits do not suffice."""


@functools.lru_cache(maxsize=CACHED_WEIGHTS)
def _split_weights(source: int, target: int, device: torch.device) -> torch.Tensor:
    """(2, target, source) float32, the high and the low bits of ``_fixed_point_weights``."""
    weights = torch.from_numpy(_fixed_point_weights(source, target))
    high = (weights + (1 << SPLIT_BITS - 1)) >> SPLIT_BITS
    return torch.stack([high, weights - (high << SPLIT_BITS)]).float().to(device)


@functools.lru_cache(maxsize=CACHED_RANGES)
def _padded_weights(side: int, sizes: range, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights to all of ``sizes`` and back, (K, 2 * T, side) and (K, 2 * side, T) with zeros beyond each size, T the largest.

    High bits of the weights in the first half of the rows, low bits in the second.
    """
    largest = sizes[-1]
    shrink = torch.zeros(len(sizes), 2, largest, side)
    enlarge = torch.zeros(len(sizes), 2, side, largest)
    for number, size in enumerate(sizes):
        shrink[number, :, :size] = _split_weights(side, size, torch.device("cpu"))
        enlarge[number, :, :, :size] = _split_weights(size, side, torch.device("cpu"))
    return shrink.flatten(1, 2).to(device), enlarge.flatten(1, 2).to(device)


def _fixed_point_weights(source: int, target: int) -> np.ndarray:
    """Pillow's bicubic weights from ``source`` to ``target`` samples: (target, source) int64 in units of 2**-22.

    Keys' cubic with a = -0.5, stretched by the scale when downsampling, truncated at the border, normalised, and
    rounded half away from zero.

    Source: Keys, Cubic convolution interpolation, 1981; Pillow's documented resampling behaviour.
    """
    scale = source / target
    stretch = max(scale, 1.0)
    center = (np.arange(target)[:, None] + 0.5) * scale
    low, high = (center + side * CUBIC_SUPPORT * stretch + 0.5 for side in (-1, 1))
    position = np.arange(source)
    taps = _cubic((position - center + 0.5) / stretch)
    taps[(position < low.astype(int)) | (position >= high.astype(int))] = 0.0
    weights = taps / taps.cumsum(1)[:, -1:] * (1 << PRECISION_BITS)  # cumsum adds in Pillow's order, sum does not
    return np.trunc(weights + np.copysign(0.5, weights)).astype(np.int64)


def _cubic(x: np.ndarray) -> np.ndarray:
    x, a = np.abs(x), CUBIC_A
    near, far = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0, (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return np.where(x < 1.0, near, np.where(x < CUBIC_SUPPORT, far, 0.0))
