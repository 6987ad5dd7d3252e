"""Realistic degradation of batches, on their device: what a camera, a codec and an editor do to a small face.

All images of a batch are processed together on a canvas of the largest size: an image of another size lies at its top
left, and the rest repeats its last row and column. The parameters of each image are given. Sums are of integers that
float32 represents exactly, so that an image does not depend on the others in its batch.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from pipeline.degradation.jpeg_compression import BLOCK, compress_
from pipeline.degradation.kernels import (
    BLUR_SIZE,
    PART,
    WEIGHT,
    WHITE,
    blur_bank,
    enlarging,
    noise_bank,
    product,
    resampling,
    shrinking,
)
from pipeline.degradation.parameters import ROUND_VALUES, parameters
from pipeline.degradation.settings import Preset, Round
from pipeline.load.degrade import Mode, exact_products, resize
from pipeline.philox import DEGRADATION_NUMBERS, uniforms
from pipeline.torch_threads import one_thread
from shards.arguments import check_argument, check_whole
from shards.process_setting import ProcessSetting

_COLOUR = 1 << 13  # weights of the colour transforms are integers in units of 1/8192
# On its way down and up, an image is resized to this multiple of the canvas, but at least to these px, as all others are;
# and from there by its own kernel. So one fast resize handles the large images, which cost most.
_BETWEEN, _MIN_DOWN_PX, _MIN_UP_PX = 1.5, 24, 32
# RGB -> Y, Cb, Cr and back, in these units. Source: JFIF 1.02
_TO_YCC = ((2449, 4809, 934), (-1382, -2714, 4096), (4096, -3430, -666))
_FROM_YCC = ((_COLOUR, 0, 11485), (_COLOUR, -2819, -5850), (_COLOUR, 14516, 0))


def canvas_of(largest: int) -> int:
    """Side of the canvas for images of at most ``largest`` px: whole JPEG blocks."""
    return -(-largest // BLOCK) * BLOCK


def _set_cudnn(enabled: bool) -> None:
    torch.backends.cudnn.enabled = enabled


no_cudnn = ProcessSetting(lambda: torch.backends.cudnn.enabled, lambda: _set_cudnn(False), _set_cudnn)
"""PyTorch's own kernels blur: cuDNN, which it takes for a single image, computes in TF32 by default."""


@torch.inference_mode()
@exact_products
@one_thread  # operations are so small that threads would wait for each other, and for the decoder's, at work on the next batch
def degrade_as(
    out: torch.Tensor,
    images: torch.Tensor,
    preset: Preset,
    values: dict[str, torch.Tensor],
    *,
    sizes: range,
    mode: Mode = "fast",
) -> None:
    """Degrades each image to its size and back, as a preset says.

    Args:
        out: (N, S, S, 3) uint8, written; may be ``images``.
        images: (N, S, S, 3) uint8 RGB.
        values: of ``parameters.parameters``, on the device of ``images``.
        sizes: all that an image may have, px, below S. The result depends on the largest.
        mode: of the resizes before and after, as for ``pipeline.load.degrade.resize``.
    """
    side, device, canvas = images.shape[1], images.device, canvas_of(sizes[-1])
    small, middle = (min(side, max(int(_BETWEEN * canvas), least)) for least in (_MIN_DOWN_PX, _MIN_UP_PX))
    size, twice = values["size"], values.get("twice")
    before = images if small == side else resize(images, small, mode)
    if twice is None:
        firsts, first = sizes, size
    else:
        firsts = range(sizes.start, canvas + 1)
        first = size.index_copy(0, twice, values["first_size"].clamp(max=canvas))
    where = torch.add(first - firsts.start, values["shrink"], alpha=len(firsts))
    pixels = _shrunk(before, shrinking(small, firsts, device, canvas=canvas).index_select(0, where))
    planes = _toned_planes(pixels, values)
    if twice is not None and len(twice) > 0:
        planes = _with_first_round(planes, preset, values, smallest=sizes.start)
    last = len(preset.rounds) - 1
    planes = _round(planes, preset.rounds[last], values, last, interlaced=len(values["interlaced"]) > 0)
    matrices = enlarging(middle, sizes, device, canvas=canvas)
    where = torch.add(size - sizes.start, values["enlarge"], alpha=len(sizes))
    mirrored = torch.add(where, values["flip"], alpha=len(matrices) // 2)
    enlarged = _enlarged(_to_rgb(planes), matrices.index_select(0, where), matrices.index_select(0, mirrored))
    if middle == side:
        out.copy_(enlarged)
    else:
        resize(enlarged, side, mode, out=out)


def degrade_image(image: np.ndarray, size: int, preset: Preset, key: tuple[int, int]) -> np.ndarray:
    """Degrades one image; ``key`` and ``size`` alone determine the random parameters.

    The bicubic resizes before and after the preset's steps equal Pillow's.

    Args:
        image: (S, S, 3) uint8 RGB.
        size: px, below S.
        key: two whole numbers below 2**64, such as the digest of the image file.

    Raises:
        TypeError, ValueError: an argument of a wrong type, shape or value.
    """
    good = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3
    good = good and image.shape[2] == 3 and image.shape[0] == image.shape[1]
    check_argument(good, "image", image, "a ndarray of uint8 and shape (S, S, 3), RGB")
    size = check_whole("size", size, 1)
    check_argument(isinstance(preset, Preset), "preset", preset, "a Preset, such as PRESETS['surveillance']")
    good = isinstance(key, Sequence) and not isinstance(key, str | bytes) and len(key) == 2
    check_argument(good, "key", key, "two whole numbers")
    key = (check_whole("key", key[0], 0, (1 << 64) - 1), check_whole("key", key[1], 0, (1 << 64) - 1))
    numbers = uniforms(list(key), size * DEGRADATION_NUMBERS, DEGRADATION_NUMBERS)[None]
    drawn = parameters(preset, numbers, np.array([size]), np.array([False]))
    values = {name: torch.from_numpy(value) for name, value in drawn.items()}
    pixels = torch.from_numpy(np.ascontiguousarray(image))[None]
    out = torch.empty_like(pixels)
    degrade_as(out, pixels, preset, values, sizes=range(size, size + 1), mode="exact")
    return out[0].numpy()


def _with_first_round(
    planes: torch.Tensor, preset: Preset, values: dict[str, torch.Tensor], *, smallest: int
) -> torch.Tensor:
    """Degrades the images that have two rounds a first time, and resizes them to their size; may write to ``planes``."""
    twice, canvas = values["twice"], planes.shape[-1]
    everyone = len(twice) == planes.shape[1]
    some = _round(planes if everyone else planes.index_select(1, twice), preset.rounds[0], values, 0)
    if smallest == canvas:  # all images are as large as the canvas, before and after
        some.mul_(PART)
    else:
        before, after = values["first_size"].clamp(max=canvas), values["size"].index_select(0, twice)
        some = _resampled(some, resampling(values["between"], before, after, rows=canvas, columns=canvas))
    return some if everyone else planes.index_copy_(1, twice, some)


def _round(
    planes: torch.Tensor, settings: Round, values: dict[str, torch.Tensor], number: int, *, interlaced: bool = False
) -> torch.Tensor:
    """Blurs, adds noise and compresses; from quarters of a level to whole levels."""
    own = {name: values[f"{name}{number}"] for name in ROUND_VALUES}
    if any(settings.blurs):
        planes = _blurred(planes, blur_bank(settings, planes.device), own["blur"])
    if interlaced:
        _interlace_(planes, values)
    _add_noise_(planes, own)
    compress_(planes, quality=own["quality"], row_offsets=own["grid_row"], column_offsets=own["grid_column"])
    return planes


def _shrunk(images: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """(N, P, P, 3) uint8 images and (N, M, P) weights -> (N, 3 * M, M) in quarters of a level: the colours of each line."""
    count, canvas, side = matrix.shape
    narrow = product(matrix, images.float().reshape(count, side, -1), PART / WEIGHT).round_()
    lines = narrow.reshape(count, canvas, side, 3).transpose(2, 3).reshape(count, -1, side)
    return product(lines, matrix.mT, 1 / WEIGHT).round_().clamp_(0, WHITE)


def _toned_planes(pixels: torch.Tensor, values: dict[str, torch.Tensor]) -> torch.Tensor:
    """Applies gamma, contrast and brightness to (N, 3 * M, M) RGB, in place -> (3, N, M, M) Y, Cb, Cr; quarters of a level."""
    count, _, canvas = pixels.shape
    divisor = (pixels * values["bias_slope"]).add_(values["bias_offset"])
    toned = pixels.div_(divisor).sub_(128 * PART).mul_(values["contrast"]).add_(values["brightness"]).round_()
    rgb = pixels.new_empty((3, count, canvas, canvas))
    torch.clamp(toned.reshape(count, canvas, 3, canvas), 0, WHITE, out=rgb.permute(1, 2, 0, 3))
    return _mixed(rgb, _TO_YCC).round_()


def _to_rgb(planes: torch.Tensor) -> torch.Tensor:
    """(3, N, M, M) Y, Cb, Cr -> (N, 3 * M, M) RGB, the colours of each line; whole levels."""
    _, count, canvas, _ = planes.shape
    pixels = planes.new_empty((count, canvas, 3, canvas))
    torch.clamp(_mixed(planes, _FROM_YCC).round_(), 0, 255, out=pixels.permute(2, 0, 1, 3))
    return pixels.reshape(count, -1, canvas)


def _mixed(planes: torch.Tensor, weights: tuple[tuple[int, ...], ...]) -> torch.Tensor:
    """Sums of (3, ...) colour planes, by weights in units of 1/``_COLOUR``."""
    return torch.mm(_colours(weights, planes.device), planes.reshape(3, -1)).reshape(planes.shape)


@functools.lru_cache(maxsize=16)
def _colours(weights: tuple[tuple[int, ...], ...], device: torch.device) -> torch.Tensor:
    return torch.tensor(weights, dtype=torch.float32, device=device) / _COLOUR


def _resampled(planes: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Resizes (3, N, M, M) planes of whole levels by (N, M, M) weights; the result is in quarters of a level."""
    half = torch.matmul(matrix, planes).mul_(PART / WEIGHT).round_()
    found = torch.matmul(half, matrix.transpose(1, 2)).mul_(1 / WEIGHT).round_()
    found[0].clamp_(0, WHITE)
    return found


def _blurred(planes: torch.Tensor, bank: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    """Blurs the planes of each image by its kernel of the bank."""
    edge = BLUR_SIZE // 2
    padded = functional.pad(planes, (edge,) * 4, mode="replicate")
    kernels = bank.index_select(0, which)[:, None]
    # The setting is one for all threads: a benchmark degrades on the CPU while its network is at work on a GPU.
    with no_cudnn if planes.device.type != "cpu" else contextlib.nullcontext():
        found = functional.conv2d(padded, kernels, groups=len(kernels)).round_()
    found[0].clamp_(0, WHITE)
    return found


def _interlace_(planes: torch.Tensor, values: dict[str, torch.Tensor]) -> None:
    """Moves every other line of some images by up to a px, in place."""
    which = values["interlaced"]
    lines = planes[:, :, 1::2].index_select(1, which)
    padded = functional.pad(lines, (1, 1, 0, 0), mode="replicate")
    left, right = padded[..., :-2] * values["left"], padded[..., 2:] * values["right"]
    planes[:, :, 1::2].index_copy_(1, which, lines.mul_(values["still"]).add_(left).add_(right))


def _add_noise_(planes: torch.Tensor, own: dict[str, torch.Tensor]) -> None:
    """Adds noise to the planes, whose variance rises with the luminance, and rounds them to whole levels, in place."""
    _, count, height, width = planes.shape
    bank = noise_bank(planes[:, 0].numel(), planes.device)
    noise = bank.index_select(0, own["noise_start"]).reshape(count, 3, height, width).transpose(0, 1)
    deviation = (planes[0] * own["light_variance"]).add_(own["dark_variance"]).sqrt_()
    noise.mul_(deviation)
    noise[1:].mul_(own["chroma_noise"])
    planes.add_(noise).mul_(1 / PART).round_()
    planes[0].clamp_(0, 255)
    planes[1:].clamp_(-128, 127)


def _enlarged(pixels: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """(N, 3 * M, M) pixels and two (N, Q, M) weights -> (N, Q, Q, 3) uint8."""
    count, side, canvas = rows.shape
    lines = product(pixels, columns.mT, PART / WEIGHT).round_()
    lines = lines.reshape(count, canvas, 3, side).transpose(2, 3).reshape(count, canvas, -1)
    enlarged = product(rows, lines, 1 / (PART * WEIGHT)).round_().clamp_(0, 255)
    return enlarged.to(torch.int16).to(torch.uint8).reshape(count, side, side, 3)  # quicker than in one step
