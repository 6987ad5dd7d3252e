"""Down to s pixels and back up, as Pillow's bicubic does it: bit-exact, or fast and nearly so."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import cv2
import numpy as np
import torch
from PIL import Image

Mode = Literal["fast", "exact"]
Precision = Literal["highest", "high", "medium"]

_AT_ONCE = 32  # images that a CPU degrades at a time
_PRECISION = 22  # bits of Pillow's fixed-point weights
_SPLIT = 11  # weight = high * 2**11 + low, so that fp32 sums of 8-bit pixels stay whole numbers below 2**24
CACHED_WEIGHTS = 1024  # pairs of sizes: all views of crops up to 512 px; those of 128 px are 254 pairs and 17 MB
_CUBIC_A = -0.5
_SUPPORT = 2.0


def degrade(images: torch.Tensor, size: int, mode: Mode = "exact") -> torch.Tensor:
    """Shrinks square images to ``size`` px and enlarges them to what they were.

    Args:
        images: (..., S, S, 3) uint8.
        size: side of the small image, px; S itself changes nothing.
        mode: ``exact`` equals Pillow's ``resize(BICUBIC)`` twice bit for bit, on the CPU and on a GPU. ``fast`` is
            several times faster on a CPU and at most 3 levels away on under 1 % of pixels; on a GPU it is the exact one.

    Returns:
        uint8 of the same shape.
    """
    side = images.shape[-2]
    if size == side:
        return images
    flat = images.reshape(-1, *images.shape[-3:])
    return resize(resize(flat, size, mode), side, mode).reshape(images.shape)


def degrade_into(out: torch.Tensor, images: torch.Tensor, *, size: int, flips: torch.Tensor, mode: Mode) -> None:
    """Writes (N, S, S, 3) uint8 ``images`` to ``out``: mirrored left to right where (N,) bool ``flips`` says so, and degraded.

    What is mirrored is the small image: resizing commutes with it bit for bit, as the weights are symmetric.
    """
    side = images.shape[-2]
    if size == side:
        _copy(out, images)
        _mirror(out, flips)
        return
    at_once = _AT_ONCE if mode == "fast" and not images.is_cuda else len(images)
    for start in range(0, len(images), at_once):
        some = slice(start, start + at_once)
        small = resize(images[some], size, mode)
        _mirror(small, flips[some])
        resize(small, side, mode, out=out[some])


def resize(images: torch.Tensor, size: int, mode: Mode = "exact", *, out: torch.Tensor | None = None) -> torch.Tensor:
    """Resizes (N, S, S, 3) uint8 to (N, size, size, 3) uint8, in ``out`` if it is given; modes as ``degrade``."""
    if out is None:
        out = images.new_empty((len(images), size, size, images.shape[-1]))
    if images.is_cuda:
        out.copy_(resize_by_products(images, size))
    elif mode == "exact":
        _resize_by_pillow(images, size, out.numpy())
    else:  # what ``functional.interpolate`` calls, which cannot be told where to write
        resized, planes = out.permute(0, 3, 1, 2), images.permute(0, 3, 1, 2)
        torch.ops.aten._upsample_bicubic2d_aa.out(planes, [size, size], False, None, None, out=resized)
    return out


def _copy(out: torch.Tensor, images: torch.Tensor) -> None:
    """On the CPU by NumPy: torch shares a copy among threads, which find the cores taken by the decoder."""
    if out.is_cuda:
        out.copy_(images)
    else:
        np.copyto(out.numpy(), images.numpy())


def _mirror(images: torch.Tensor, flips: torch.Tensor) -> None:
    """Mirrors some of (N, S, S, 3) images in place."""
    if images.is_cuda:
        images.copy_(torch.where(flips[:, None, None, None], images.flip(-2), images))
    else:
        pixels = images.numpy()
        for place in np.flatnonzero(flips.numpy()):
            cv2.flip(pixels[place], 1, dst=pixels[place])


def _resize_by_pillow(images: torch.Tensor, size: int, out: np.ndarray) -> None:
    pixels = images.numpy()

    def some(places: range) -> None:
        for place in places:
            small = Image.fromarray(pixels[place]).resize((size, size), Image.Resampling.BICUBIC)
            out[place] = np.asarray(small)

    threads = torch.get_num_threads()
    list(_threads(threads).map(some, [range(first, len(out), threads) for first in range(threads)]))


@functools.lru_cache(maxsize=1)
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "degrade")


def resize_by_products(images: torch.Tensor, size: int, precision: Precision = "highest") -> torch.Tensor:
    """``resize``, exact, as matrix products of whole numbers: Pillow's very sums, on any device and in any order.

    Args:
        precision: of the products, as ``torch.set_float32_matmul_precision`` has it; only ``highest`` is sure to be exact.
    """
    weights = _split_weights(images.shape[1], size, images.device)
    with _matmul_precision(precision):
        across = _apply(weights, images)  # Pillow goes horizontally first, and rounds and clamps in between
        return _apply(weights, across.transpose(1, 2)).transpose(1, 2)


def _apply(weights: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Resamples axis 2 of (N, H, W, 3) uint8 with weights (2, out, W), high and low parts."""
    count, height, width, channels = images.shape
    columns = images.permute(2, 0, 1, 3).reshape(width, -1).float()
    sums = weights.flatten(0, 1) @ columns
    high, low = sums.to(torch.int32).chunk(2)
    total = (high << _SPLIT) + low + (1 << _PRECISION - 1)
    out = (total >> _PRECISION).clamp_(0, 255).to(torch.uint8)
    return out.reshape(-1, count, height, channels).permute(1, 2, 0, 3)


@contextlib.contextmanager
def _matmul_precision(wanted: Precision) -> Iterator[None]:
    """TF32 and its bf16 relatives may keep too few bits for whole-number sums, whatever the training uses."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(wanted)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@functools.lru_cache(maxsize=CACHED_WEIGHTS)
def _split_weights(source: int, target: int, device: torch.device) -> torch.Tensor:
    """(2, target, source) float32: the high and low parts of ``fixed_point_weights``."""
    weights = torch.tensor(fixed_point_weights(source, target), dtype=torch.int64)
    high = (weights + (1 << _SPLIT - 1)) >> _SPLIT
    return torch.stack([high, weights - (high << _SPLIT)]).float().to(device)


def fixed_point_weights(source: int, target: int) -> list[list[int]]:
    """Pillow's bicubic weights from ``source`` to ``target`` samples, (target, source) whole numbers in units of 2**-22.

    Keys' cubic with a = -0.5, widened by the scale when shrinking, cut at the border, normalised, rounded half
    away from zero.

    Source: Keys, Cubic convolution interpolation, 1981; Pillow's documented resampling behaviour.
    """
    scale = source / target
    stretch = max(scale, 1.0)
    support = _SUPPORT * stretch
    rows = []
    for index in range(target):
        center = (index + 0.5) * scale
        low, high = max(int(center - support + 0.5), 0), min(int(center + support + 0.5), source)
        taps = [_cubic((position - center + 0.5) / stretch) for position in range(low, high)]
        norm = sum(taps)
        row = [0] * source
        for position, tap in zip(range(low, high), taps, strict=True):
            row[position] = _round_half_away(tap / norm * (1 << _PRECISION))
        rows.append(row)
    return rows


def _cubic(x: float) -> float:
    x, a = abs(x), _CUBIC_A
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    if x < 2.0:
        return (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return 0.0


def _round_half_away(value: float) -> int:
    return int(math.copysign(math.floor(abs(value) + 0.5), value))
