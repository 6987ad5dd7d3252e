"""Kernels: resampling matrices, blurs, and the bank of noise; whole numbers, so that sums of products are exact."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch
from scipy.special import erf, j1

from pipeline.degradation.settings import KERNELS, Round
from pipeline.philox import uniforms

PART = 4  # values of pixels are integers in units of a quarter of a grey level
WHITE = 255 * PART
WEIGHT = 1 << 13  # weights of a resampling matrix are integers in units of 1/8192
_BLUR_WEIGHT = 1 << 12
BLUR_SIZE = 7  # px
BLURS = 1024  # in a bank, from which each image draws one
NOISE_VALUES = 1 << 18  # in the bank: each image begins at one of them
_SAMPLES = 256  # of a kernel's profile, for each px
_SUPPORT = 2  # px
_PROFILE_WEIGHT = 1 << 10
_OUTSIDE = 1e4  # px: a place that no kernel reaches
_NOISE_KEY, _BLUR_KEY = (1 << 63) + 1, (1 << 63) + 2  # no seed of a run is that large
_NOISE_TERMS = 12  # uniform numbers of 16 bits: their sum is close to normal, with a variance of 65536 squared


def product(left: torch.Tensor, right: torch.Tensor, scale: float) -> torch.Tensor:
    """``scale * left @ right``, of (N, ., .) each."""
    return torch.baddbmm(left.new_empty(()), left, right, beta=0, alpha=scale)


@functools.lru_cache(maxsize=32)
def shrinking(source: int, sizes: range, device: torch.device, *, canvas: int) -> torch.Tensor:
    """(K * T, canvas, source) matrices of ``resampling`` from ``source`` px to each of T sizes, by each of K kernels."""
    kernel, target = _every(sizes, device)
    return resampling(kernel, source, target, rows=canvas, columns=source)


@functools.lru_cache(maxsize=32)
def enlarging(target: int, sizes: range, device: torch.device, *, canvas: int) -> torch.Tensor:
    """(2 * K * T, target, canvas) matrices of ``resampling`` from each of T sizes, by each of K kernels; then mirrored."""
    kernel, source = _every(sizes, device)
    matrices = resampling(kernel, source, target, rows=target, columns=canvas)
    return torch.cat([matrices, matrices.flip(1)])


def _every(sizes: range, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Each kernel with each size: two (K * T,) Tensors."""
    each = torch.arange(sizes.start, sizes.stop, dtype=torch.float32, device=device)
    return torch.arange(len(KERNELS), device=device).repeat_interleave(len(each)), each.repeat(len(KERNELS))


def resampling(
    kernel: torch.Tensor, source: torch.Tensor | int, target: torch.Tensor | int, *, rows: int, columns: int
) -> torch.Tensor:
    """Matrices that resize a line of ``source`` px to ``target`` px.

    As in Pillow, kernels are stretched when they shrink, which avoids aliasing, apart from ``nearest``; and truncated at
    the border. Rows beyond ``target`` repeat the last one.

    Args:
        kernel: (N,) int64 positions in ``KERNELS``.
        source, target: px, one for all or (N,) float32.
        rows, columns: at least the largest ``target`` and ``source``.

    Returns:
        (N, rows, columns) float32 integers in units of 1/``WEIGHT``.
    """
    device, shape = kernel.device, (len(kernel), 1, 1)
    size, count = (
        torch.as_tensor(one, dtype=torch.float32, device=device).reshape(-1, 1, 1) for one in (source, target)
    )
    scale = size / count
    stretch = torch.where(kernel.reshape(shape) == KERNELS.index("nearest"), 1.0, scale.clamp(min=1.0))
    row = torch.minimum(torch.arange(rows, device=device).reshape(1, -1, 1), count - 1)
    column = torch.arange(columns, device=device).reshape(1, 1, -1)
    place = torch.where(column < size, column + 0.5, _OUTSIDE)
    samples = _SAMPLES / stretch
    distance = (place * samples).sub((row + 0.5) * scale * samples).abs_()
    profiles = _profiles(device)
    length = len(profiles) // len(KERNELS)
    index = distance.add_(0.5).clamp_(max=length - 1).add_(kernel.reshape(shape) * length).long()
    taps = profiles.index_select(0, index.flatten()).reshape(index.shape)
    return taps.mul_(WEIGHT / taps.sum(-1, keepdim=True)).round_()


@functools.lru_cache(maxsize=8)
def _profiles(device: torch.device) -> torch.Tensor:
    """The kernels at distances from 0 on, one after another; float32 integers. The last value of each is 0."""
    x = np.arange(_SUPPORT * _SAMPLES + 2) / _SAMPLES
    cubic = np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2)
    box = np.where(x == 0.5, 0.5, x < 0.5)
    values = {
        "area": box,
        "linear": np.maximum(1 - x, 0),
        "cubic": cubic,
        "lanczos": np.sinc(x) * np.sinc(x / _SUPPORT),
        "nearest": box,
    }
    profiles = np.stack([np.where(x < _SUPPORT, values[name], 0) for name in KERNELS])
    return torch.from_numpy(np.rint(profiles * _PROFILE_WEIGHT).astype(np.float32).ravel()).to(device)


@functools.lru_cache(maxsize=16)
def blur_bank(settings: Round, device: torch.device) -> torch.Tensor:
    """(``BLURS``, 7, 7) float32 kernels as the settings draw them; their weights are multiples of 2**-12."""
    kind, angle, sigma, aspect, length, cutoff = (
        uniforms([_BLUR_KEY, 0], 0, BLURS * 8).reshape(BLURS, 8).T[:6, :, None, None]
    )

    def between(limits: tuple[float, float], u: np.ndarray) -> np.ndarray:
        return limits[0] + u * (limits[1] - limits[0])

    angle = angle * np.pi
    sigma, aspect = between(settings.sigma, sigma), between(settings.aspect, aspect)
    length, cutoff = between(settings.motion_length, length), between(settings.cutoff, cutoff)
    kinds: list[tuple[float, Callable[[], np.ndarray]]] = [
        (settings.gaussian, lambda: gaussian(sigma, sigma, angle)),
        (settings.anisotropic, lambda: gaussian(sigma, sigma * aspect, angle)),
        (settings.motion, lambda: motion(length, angle)),
        (settings.sinc, lambda: low_pass(cutoff)),
    ]
    bank = np.broadcast_to(gaussian(0.05, 0.05, 0.0), (BLURS, BLUR_SIZE, BLUR_SIZE)).copy()  # not blurred
    upper = sum(share for share, _ in kinds)
    for share, kernels in reversed(kinds):  # the first share of the numbers draws the first kind, and so on
        bank = np.where(kind < upper, kernels(), bank)
        upper -= share
    return torch.from_numpy(_whole(bank).astype(np.float32) / _BLUR_WEIGHT).to(device)


def _whole(kernels: np.ndarray) -> np.ndarray:
    """(N, 7, 7) kernels as integers that sum to ``_BLUR_WEIGHT``: the largest weight takes what rounding left."""
    flat = kernels.reshape(len(kernels), -1)
    found = np.rint(flat / flat.sum(1, keepdims=True) * _BLUR_WEIGHT)
    found[np.arange(len(found)), flat.argmax(1)] += _BLUR_WEIGHT - found.sum(1)
    return found.reshape(kernels.shape)


def _grid(angle: np.ndarray | float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """(..., 7, 7) distances from the centre along and across ``angle``, px and radians."""
    y, x = np.mgrid[:BLUR_SIZE, :BLUR_SIZE] - (BLUR_SIZE - 1) / 2
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def gaussian(along: np.ndarray | float, across: np.ndarray | float, angle: np.ndarray | float) -> np.ndarray:
    """(..., 7, 7) Gaussians with standard deviations ``along`` and ``across`` an ``angle``, px and radians."""
    first, second = _grid(angle)
    return np.exp(-((first / along) ** 2 + (second / across) ** 2) / 2)


def motion(length: np.ndarray, angle: np.ndarray, width: float = 0.4) -> np.ndarray:
    """(..., 7, 7) motion blurs along a line of ``length`` px, drawn by a Gaussian of standard deviation ``width`` px."""
    first, second = _grid(angle)
    ends = [erf((first + side * length / 2) / (width * np.sqrt(2))) for side in (1, -1)]
    return (ends[0] - ends[1]) * np.exp(-((second / width) ** 2) / 2)


def low_pass(cutoff: np.ndarray) -> np.ndarray:
    """(..., 7, 7) ideal circular low-pass filters that end at ``cutoff`` radians by px: their edges ring."""
    radius = np.maximum(np.hypot(*_grid()), 1e-6)
    return cutoff * j1(cutoff * radius) / (2 * np.pi * radius)


@functools.lru_cache(maxsize=8)
def noise_bank(length: int, device: torch.device) -> torch.Tensor:
    """(``NOISE_VALUES``, ``length``) float32 normal numbers, the same on every machine: row i begins with number i.

    The rows overlap in memory. Values of neighbouring rows are the same, shifted.
    """
    words = np.random.Philox(key=[_NOISE_KEY, 0]).random_raw(NOISE_VALUES * _NOISE_TERMS // 4)
    numbers = words.astype("<u8").view("<u2").astype(np.int64).reshape(-1, _NOISE_TERMS)
    normal = (numbers.sum(1) * 2 - _NOISE_TERMS * 65535) / (2 * 65536)
    circular = np.resize(normal, NOISE_VALUES + length - 1).astype(np.float32)
    return torch.from_numpy(circular).to(device).as_strided((NOISE_VALUES, length), (1, 1))
