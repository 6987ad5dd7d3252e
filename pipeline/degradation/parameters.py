"""What each image draws from a preset: random words become numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.degradation.kernels import BLURS, NOISE_VALUES
from pipeline.degradation.presets import Preset, Range
from pipeline.philox import DEGRADATION_NUMBERS

# A column of random numbers for each parameter; those of the rounds follow, ROUND_COLUMNS for each.
COLUMNS = {
    name: column
    for column, name in enumerate(
        ("shrink", "enlarge", "gamma", "contrast", "brightness", "interlaced", "shift", "first_size", "between")
    )
}
ROUND_COLUMNS = ("blur", "noise", "shot_noise", "chroma_noise", "noise_start", "quality", "grid_row", "grid_column")
MCU = 16  # px: the grid of a 4:2:0 JPEG


def parameters(preset: Preset, numbers: np.ndarray, sizes: np.ndarray, flips: np.ndarray) -> dict[str, np.ndarray]:
    """The parameters of N images.

    Args:
        numbers: (N, ``DEGRADATION_NUMBERS``) float64 random numbers, 0 to below 1.
        sizes: (N,) px of the small images.
        flips: (N,) bool.

    Returns:
        Name -> (N,) float32. Those of round 0 are called ``blur0`` and so on.
    """

    def drawn(limits: Range, name: str) -> np.ndarray:
        low, high = limits
        return low + numbers[:, COLUMNS[name]] * (high - low)

    def kernel(shares: Sequence[float], name: str) -> np.ndarray:
        limits = np.cumsum(shares)[:-1]
        return np.searchsorted(limits, numbers[:, COLUMNS[name]], side="right")

    interlaced = numbers[:, COLUMNS["interlaced"]] < preset.interlaced
    found = {
        "size": sizes,
        "flip": flips,
        "shrink": kernel(preset.shrink, "shrink"),
        "enlarge": kernel(preset.enlarge, "enlarge"),
        "bias": bias(drawn(preset.gamma, "gamma")),
        "contrast": drawn(preset.contrast, "contrast"),
        "brightness": drawn(preset.brightness, "brightness"),
        "shift": drawn((-preset.field_shift, preset.field_shift), "shift") * interlaced,
        "between": kernel(preset.shrink, "between"),
        "first_size": np.rint(sizes * drawn(preset.first_size, "first_size")),
    }
    first = len(COLUMNS)
    for number, settings in enumerate(preset.rounds):
        columns = numbers[:, first + number * len(ROUND_COLUMNS) :][:, : len(ROUND_COLUMNS)].T
        u = dict(zip(ROUND_COLUMNS, columns, strict=True))

        def within(limits: Range, u: np.ndarray) -> np.ndarray:
            return limits[0] + u * (limits[1] - limits[0])

        found |= {
            f"blur{number}": np.floor(u["blur"] * BLURS),
            f"noise{number}": within(settings.noise, u["noise"]),
            f"shot_noise{number}": within(settings.shot_noise, u["shot_noise"]),
            f"chroma_noise{number}": within(settings.chroma_noise, u["chroma_noise"]),
            f"noise_start{number}": np.floor(u["noise_start"] * NOISE_VALUES),
            f"quality{number}": np.rint(within(settings.quality, u["quality"])),
            f"grid_row{number}": np.floor(u["grid_row"] * MCU),
            f"grid_column{number}": np.floor(u["grid_column"] * MCU),
        }
    return {name: values.astype(np.float32) for name, values in found.items()}


def bias(gamma: np.ndarray) -> np.ndarray:
    """The c of ``x / (c (1 - x) + 1)``, which is close to ``x ** gamma`` for x in 0..1 and equal at 1/2.

    Source: Schlick, Fast alternatives to Perlin's bias and gain functions, Graphics Gems IV, 1994.
    """
    return 2.0**gamma - 2.0


assert len(COLUMNS) + 2 * len(ROUND_COLUMNS) <= DEGRADATION_NUMBERS
