"""Realistic degradation of batches, on their device: what a camera, a codec and an editor do to a small face.

All images of a batch are processed together on a canvas of the largest size: an image of another size lies at its top
left, and the rest repeats its last row and column. The parameters of each image are given. Sums are of integers that
float32 represents exactly, so that an image does not depend on the others in its batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from torch.nn import functional

from pipeline.degradation import jpeg
from pipeline.degradation.kernels import (
    BLUR_SIZE,
    WEIGHT,
    blur_bank,
    enlarging,
    noise_bank,
    product,
    resampling,
    shrinking,
)
from pipeline.degradation.parameters import parameters
from pipeline.degradation.presets import Preset
from pipeline.load.degrade import Mode, resize
from pipeline.philox import DEGRADATION_NUMBERS, uniforms

PART = 4  # values of pixels are integers in units of a quarter of a grey level
_WHITE = 255 * PART
_COLOUR = 1 << 13  # weights of the colour transforms are integers in units of 1/8192
# On its way down and up, an image is resized to this multiple of the canvas, but at least to these px, as all others are;
# and from there by its own kernel. So the large images, which are dear, are handled by one quick resize.
_BETWEEN, _LEAST_DOWN, _LEAST_UP = 1.5, 24, 32
# RGB -> Y, Cb, Cr and back, in these units. Source: JFIF 1.02
_TO_YCC = ((2449, 4809, 934), (-1382, -2714, 4096), (4096, -3430, -666))
_FROM_YCC = ((0, 11485), (-2819, -5850), (14516, 0))  # Cb and Cr in R, G and B


def canvas_of(largest: int) -> int:
    """Side of the canvas for images of at most ``largest`` px: whole JPEG blocks."""
    return -(-largest // jpeg.BLOCK) * jpeg.BLOCK


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
    small, middle = (min(side, max(int(_BETWEEN * canvas), least)) for least in (_LEAST_DOWN, _LEAST_UP))
    size = first = values["size"].long()
    between = None
    if len(preset.rounds) > 1:
        first = values["first_size"].long().clamp(max=canvas)
        between = resampling(values["between"].long(), first.float(), values["size"], rows=canvas, columns=canvas)
    before = images if small == side else resize(images, small, mode)
    firsts = range(sizes.start, canvas + 1) if between is not None else sizes
    where = values["shrink"].long() * len(firsts) + first - firsts.start
    pixels = _shrunk(before, shrinking(small, firsts, device, canvas=canvas).index_select(0, where))
    planes = _to_ycc(_toned(pixels, values))
    for number, settings in enumerate(preset.rounds):
        if number and between is not None:
            planes = _resampled(planes, between)
        own = {name.removesuffix(str(number)): value for name, value in values.items() if name.endswith(str(number))}
        planes = _blurred(planes, blur_bank(settings, device), own["blur"])
        if preset.interlaced and number + 1 == len(preset.rounds):
            _interlace_(planes, values["shift"])
        _add_noise_(planes, own)
        quality, row, column = (own[name].long() for name in ("quality", "grid_row", "grid_column"))
        jpeg.compress_(planes, quality=quality, row_offsets=row, column_offsets=column)
    where = values["enlarge"].long() * len(sizes) + size - sizes.start
    matrices = enlarging(middle, sizes, device, canvas=canvas)
    mirrored = where + values["flip"].long() * (len(matrices) // 2)
    enlarged = _enlarged(_to_rgb(planes), matrices.index_select(0, where), matrices.index_select(0, mirrored))
    if middle == side:
        out.copy_(enlarged)
    else:
        resize(enlarged, side, mode, out=out)


def degrade_image(image: np.ndarray, size: int, preset: Preset, key: tuple[int, int]) -> np.ndarray:
    """Degrades one image, as ``key`` and ``size`` alone decide; resized before and after as Pillow does.

    Args:
        image: (S, S, 3) uint8 RGB.
        size: px, below S.
        key: two whole numbers below 2**64, such as the digest of the image file.
    """
    numbers = uniforms(list(key), size * DEGRADATION_NUMBERS, DEGRADATION_NUMBERS)[None]
    drawn = parameters(preset, numbers, np.array([size]), np.array([False]))
    values = {name: torch.from_numpy(value) for name, value in drawn.items()}
    pixels = torch.from_numpy(np.ascontiguousarray(image))[None]
    out = torch.empty_like(pixels)
    with _one_thread():
        degrade_as(out, pixels, preset, values, sizes=range(size, size + 1), mode="exact")
    return out[0].numpy()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """PyTorch uses one thread in this thread: for one image, threads that wait for each other only cost time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _shrunk(images: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """(N, P, P, 3) uint8 images and (N, M, P) weights -> (N, M, 3, M) in quarters of a level."""
    count, canvas, side = matrix.shape
    narrow = product(matrix, images.float().reshape(count, side, -1), PART / WEIGHT).round_()
    lines = narrow.reshape(count, canvas, side, 3).transpose(2, 3).reshape(count, -1, side)
    small = product(lines, matrix.transpose(1, 2), 1 / WEIGHT).round_().clamp_(0, _WHITE)
    return small.reshape(count, canvas, 3, canvas)


def _toned(pixels: torch.Tensor, values: dict[str, torch.Tensor]) -> torch.Tensor:
    """Applies gamma, contrast and brightness to (N, M, 3, M) pixels, in place; see ``parameters.bias``."""
    bias, contrast, brightness = (_by_image(values[name], pixels) for name in ("bias", "contrast", "brightness"))
    divisor = (pixels * (bias / -_WHITE)).add_(bias + 1)
    toned = pixels.div_(divisor).sub_(128 * PART).mul_(contrast).add_(brightness * PART + 128 * PART)
    return toned.round_().clamp_(0, _WHITE)


def _to_ycc(pixels: torch.Tensor) -> torch.Tensor:
    """(N, M, 3, M) RGB -> (3, N, M, M) Y, Cb, Cr, in quarters of a level."""
    planes = pixels.new_empty((3, len(pixels), pixels.shape[1], pixels.shape[3]))
    channels = pixels.unbind(2)
    for plane, weights in zip(planes, _TO_YCC, strict=True):
        torch.mul(channels[0], weights[0], out=plane)
        plane.add_(channels[1], alpha=weights[1]).add_(channels[2], alpha=weights[2])  # exact: these are integers
    return planes.mul_(1 / _COLOUR).round_()


def _to_rgb(planes: torch.Tensor) -> torch.Tensor:
    """(3, N, M, M) Y, Cb, Cr -> (N, M, 3, M) RGB; whole levels."""
    luma, *chroma = planes
    pixels = planes.new_empty((luma.shape[0], luma.shape[1], 3, luma.shape[2]))
    for channel, weights in zip(pixels.unbind(2), _FROM_YCC, strict=True):
        torch.mul(luma, _COLOUR, out=channel)
        for plane, weight in zip(chroma, weights, strict=True):
            if weight:
                channel.add_(plane, alpha=weight)
    return pixels.mul_(1 / _COLOUR).round_().clamp_(0, 255)


def _resampled(planes: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Resizes (3, N, M, M) planes of whole levels by (N, M, M) weights; the result is in quarters of a level."""
    half = torch.matmul(matrix, planes).mul_(PART / WEIGHT).round_()
    found = torch.matmul(half, matrix.transpose(1, 2)).mul_(1 / WEIGHT).round_()
    found[0].clamp_(0, _WHITE)
    return found


def _blurred(planes: torch.Tensor, bank: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    """Blurs the planes of each image by its kernel of the bank."""
    edge = BLUR_SIZE // 2
    padded = functional.pad(planes, (edge,) * 4, mode="replicate")
    kernels = bank.index_select(0, which.long())[:, None]
    found = functional.conv2d(padded, kernels, groups=len(kernels)).round_()
    found[0].clamp_(0, _WHITE)
    return found


def _interlace_(planes: torch.Tensor, shift: torch.Tensor) -> None:
    """Moves every other line by ``shift``, (N,) px from -1 to 1, in place."""
    lines = planes[:, :, 1::2]
    padded = functional.pad(lines, (1, 1, 0, 0), mode="replicate")
    shift = _by_image(shift, lines[0])
    left, right = padded[..., :-2] * shift.clamp(min=0), padded[..., 2:] * (-shift).clamp(min=0)
    lines.mul_(1 - shift.abs()).add_(left).add_(right)


def _add_noise_(planes: torch.Tensor, own: dict[str, torch.Tensor]) -> None:
    """Adds noise to the planes, whose variance rises with the luminance, and rounds them to whole levels, in place."""
    _, count, height, width = planes.shape
    bank = noise_bank(planes[:, 0].numel(), planes.device)
    noise = bank.index_select(0, own["noise_start"].long()).reshape(count, 3, height, width).transpose(0, 1)
    constant, shot, chroma = (_by_image(own[name], planes[0]) for name in ("noise", "shot_noise", "chroma_noise"))
    deviation = (planes[0] * (shot * shot * (PART * PART / _WHITE))).add_(constant * constant * PART * PART).sqrt_()
    noise.mul_(deviation)
    noise[1:].mul_(chroma)
    planes.add_(noise).mul_(1 / PART).round_()
    planes[0].clamp_(0, 255)
    planes[1:].clamp_(-128, 127)


def _enlarged(pixels: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """(N, M, 3, M) pixels and two (N, Q, M) weights -> (N, Q, Q, 3) uint8."""
    count, side, canvas = rows.shape
    lines = product(pixels.reshape(count, -1, canvas), columns.transpose(1, 2), PART / WEIGHT).round_()
    lines = lines.reshape(count, canvas, 3, side).transpose(2, 3).reshape(count, canvas, -1)
    enlarged = product(rows, lines, 1 / (PART * WEIGHT)).round_().clamp_(0, 255)
    return enlarged.to(torch.int16).to(torch.uint8).reshape(count, side, side, 3)  # quicker than in one step


def _by_image(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(N,) values, to be combined with (N, ...) ones."""
    return values.reshape(-1, *[1] * (like.ndim - 1))
