"""What each image draws from a preset: random words become numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.degradation.jpeg_compression import MCU
from pipeline.degradation.kernels import BLURS, NOISE_VALUES, PART, WHITE
from pipeline.degradation.settings import Preset, Range, Round
from pipeline.philox import DEGRADATION_NUMBERS

# A column of random numbers for each parameter; those of the rounds follow, ROUND_COLUMNS for each.
COLUMNS = {
    name: column
    for column, name in enumerate(
        ("shrink", "enlarge", "gamma", "contrast", "brightness", "interlaced", "shift", "first_size", "between")
    )
}
ROUND_COLUMNS = ("blur", "noise", "shot_noise", "chroma_noise", "noise_start", "quality", "grid_row", "grid_column")
ROUND_VALUES = (
    *("blur", "noise_start", "dark_variance", "light_variance", "chroma_noise"),
    *("quality", "grid_row", "grid_column"),
)
_TWICE = DEGRADATION_NUMBERS - 1  # the column that says which images have two rounds


def parameters(preset: Preset, numbers: np.ndarray, sizes: np.ndarray, flips: np.ndarray) -> dict[str, np.ndarray]:
    """The parameters of N images, as ``realistic`` needs them: levels in quarters, constants multiplied out.

    Args:
        numbers: (N, ``DEGRADATION_NUMBERS``) float64 random numbers, 0 to below 1.
        sizes: (N,) px of the small images.
        flips: (N,) bool.

    Returns:
        Name -> (N,) int64 whole numbers or (N, 1, 1) float32. ``ROUND_VALUES`` of round 0 are called ``blur0`` and so on.
        ``interlaced`` and, if the preset has two rounds, ``twice`` are positions of images: those that are interlaced,
        and those that have both rounds. What these alone need is as long as they are.
    """
    u = dict(zip(COLUMNS, numbers.T, strict=False))
    gamma = bias(_within(preset.gamma, u["gamma"])).astype(np.float32)
    brightness = _within(preset.brightness, u["brightness"]).astype(np.float32)
    interlaced = np.flatnonzero(u["interlaced"] < preset.interlaced)
    shift = _within((-preset.field_shift, preset.field_shift), u["shift"][interlaced]).astype(np.float32)
    found = {
        "size": sizes.astype(np.int64),
        "flip": flips.astype(np.int64),
        "shrink": _kernels(preset.shrink, u["shrink"]),
        "enlarge": _kernels(preset.enlarge, u["enlarge"]),
        "bias_slope": gamma / -WHITE,
        "bias_offset": gamma + 1,
        "contrast": _within(preset.contrast, u["contrast"]),
        "brightness": brightness * PART + 128 * PART,
        "interlaced": interlaced,
        "left": shift.clip(0),
        "right": (-shift).clip(0),
        "still": 1 - abs(shift),
    }
    *first, last = preset.rounds
    found |= _of_round(last, len(first), numbers)
    if first:
        twice = np.flatnonzero(numbers[:, _TWICE] < preset.twice)
        larger = np.rint(sizes[twice] * _within(preset.first_size, u["first_size"][twice])).astype(np.int64)
        found |= {"twice": twice, "first_size": larger, "between": _kernels(preset.shrink, u["between"][twice])}
        found |= _of_round(first[0], 0, numbers[twice])
    return {
        name: values if values.dtype == np.int64 else values.astype(np.float32)[:, None, None]
        for name, values in found.items()
    }


def _of_round(settings: Round, number: int, numbers: np.ndarray) -> dict[str, np.ndarray]:
    """``ROUND_VALUES`` of the images in one round."""
    u = dict(zip(ROUND_COLUMNS, numbers.T[len(COLUMNS) + number * len(ROUND_COLUMNS) :], strict=False))
    noise = _within(settings.noise, u["noise"]).astype(np.float32)
    shot_noise = _within(settings.shot_noise, u["shot_noise"]).astype(np.float32)
    values = (
        (u["blur"] * BLURS).astype(np.int64),
        (u["noise_start"] * NOISE_VALUES).astype(np.int64),
        noise * noise * PART * PART,
        shot_noise * shot_noise * (PART * PART / WHITE),
        _within(settings.chroma_noise, u["chroma_noise"]),
        np.rint(_within(settings.quality, u["quality"])).astype(np.int64),
        (u["grid_row"] * MCU).astype(np.int64),
        (u["grid_column"] * MCU).astype(np.int64),
    )
    return {f"{name}{number}": value for name, value in zip(ROUND_VALUES, values, strict=True)}


def _within(limits: Range, u: np.ndarray) -> np.ndarray:
    low, high = limits
    return low + u * (high - low)


def _kernels(shares: Sequence[float], u: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.cumsum(shares)[:-1], u, side="right")


def bias(gamma: np.ndarray) -> np.ndarray:
    """The c of ``x / (c (1 - x) + 1)``, which is close to ``x ** gamma`` for x in 0..1 and equal at 1/2.

    Source: Schlick, Fast alternatives to Perlin's bias and gain functions, Graphics Gems IV, 1994.
    """
    return 2.0**gamma - 2.0


assert len(COLUMNS) + 2 * len(ROUND_COLUMNS) <= _TWICE
