"""Named presets of realistic degradation, and those of a user in a TOML file.

The ranges follow what the literature draws for its training data, and pictures of low-resolution faces.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.degradation.settings import KERNELS, Preset, PresetError, Round
from shards.arguments import check_path, shown

MAX_SIZE_PX = 128

PRESETS = {
    # A face far from a fixed camera: out of focus or moving, noise in the dark, video compressed for a small disk
    "surveillance": Preset(
        shrink=(0.4, 0.25, 0.2, 0.05, 0.1),
        enlarge=(0.0, 0.35, 0.45, 0.15, 0.05),
        gamma=(0.75, 1.5),
        contrast=(0.7, 1.1),
        brightness=(-30.0, 20.0),
        interlaced=0.15,
        rounds=(
            Round(
                gaussian=0.3,
                anisotropic=0.2,
                motion=0.2,
                sinc=0.1,
                sigma=(0.2, 0.8),
                aspect=(0.4, 1.0),
                motion_length=(0.5, 2.5),
                cutoff=(1.8, 3.0),
                noise=(0.5, 5.0),
                shot_noise=(0.0, 8.0),
                chroma_noise=(0.0, 0.8),
                quality=(35.0, 85.0),
            ),
        ),
    ),
    # A face close to a cheap camera, sent over a network: sharp or a little soft, noise of colour, moderate compression
    "webcam": Preset(
        shrink=(0.4, 0.3, 0.25, 0.05, 0.0),
        enlarge=(0.0, 0.45, 0.45, 0.1, 0.0),
        gamma=(0.75, 1.35),
        contrast=(0.8, 1.15),
        brightness=(-20.0, 20.0),
        rounds=(
            Round(
                gaussian=0.45,
                motion=0.1,
                sinc=0.1,
                sigma=(0.2, 0.6),
                motion_length=(0.5, 1.5),
                cutoff=(2.0, 3.0),
                noise=(0.3, 2.5),
                shot_noise=(0.0, 5.0),
                chroma_noise=(0.5, 1.5),
                quality=(30.0, 90.0),
            ),
        ),
    ),
    # Anything, over wide ranges; three in ten images are noisy and compressed a first time, at a larger size
    "blind-sr": Preset(
        shrink=(0.3, 0.3, 0.25, 0.05, 0.1),
        enlarge=(0.1, 0.35, 0.35, 0.1, 0.1),
        gamma=(0.8, 1.25),
        contrast=(0.75, 1.1),
        brightness=(-15.0, 15.0),
        twice=0.3,
        rounds=(
            Round(noise=(0.0, 6.0), shot_noise=(0.0, 8.0), quality=(40.0, 95.0)),
            Round(
                gaussian=0.4,
                anisotropic=0.2,
                motion=0.1,
                sinc=0.2,
                sigma=(0.2, 1.0),
                motion_length=(0.5, 3.0),
                cutoff=(1.5, 3.0),
                noise=(0.0, 4.0),
                shot_noise=(0.0, 5.0),
                quality=(40.0, 95.0),
            ),
        ),
    ),
}


@dataclasses.dataclass(frozen=True)
class Degradation:
    """A preset by its name, or a preset of the user's in a TOML file. Two are equal if their presets are.

    Attributes:
        name: of the preset, or the file's path.
        digest: of the preset.
    """

    name: str = dataclasses.field(compare=False)
    digest: str

    @property
    def label(self) -> str:
        """The name, or that of the file without its ending."""
        return self.name if self.name in PRESETS else Path(self.name).stem

    @functools.cached_property
    def preset(self) -> Preset:
        """Raises: PresetError: the file cannot be used, or has changed."""
        preset = _preset_of(self.name)
        if preset.digest != self.digest:
            raise PresetError(
                f"{self.name}: has changed: its digest is {preset.digest}, not {self.digest}; restore the file"
            )
        return preset

    def __str__(self) -> str:
        """The text that ``find_degradation`` reads: with the digest, if there is a file that may change."""
        return self.name if self.name in PRESETS else f"{self.name}#{self.digest}"


def check_size(size: int) -> None:
    """Raises: PresetError: images of ``size`` px are not degraded realistically."""
    if size > MAX_SIZE_PX:
        raise PresetError(
            f"a preset is for at most {MAX_SIZE_PX} px, found {size}; add a view of that size without one"
        )


def find_degradation(text: str | os.PathLike[str]) -> Degradation:
    """Finds a preset by its name or its file, ``mine.toml``. With a digest, ``mine.toml#..``, the file is read later.

    Raises:
        PresetError: there is none, or the file cannot be used.
        TypeError: ``text`` is neither text nor a path.
    """
    text = str(check_path("text", text))
    if match := re.fullmatch(r"(.+\.toml)#([0-9a-f]{16})", text, re.DOTALL):
        return Degradation(match[1], match[2])
    return Degradation(text, _preset_of(text).digest)


def _preset_of(name: str) -> Preset:
    if name in PRESETS:
        return PRESETS[name]
    if not name.endswith(".toml"):
        raise PresetError(f"degradation {name!r} is unknown; choose {', '.join(PRESETS)} or a file NAME.toml")
    from pipeline.tables.toml_file import read_toml

    try:
        return _preset_from(read_toml(Path(name)))
    except OSError as error:
        raise PresetError(f"{name}: {error.strerror or error}; expected a TOML file with a preset") from None
    except (ValueError, PresetError) as error:
        raise PresetError(f"{name}: {error}") from None


def _preset_from(record: Mapping[str, Any]) -> Preset:
    """A preset from the keys of a TOML file. Raises: PresetError: a key is unknown or missing, or a value invalid."""
    rounds = record.get("rounds", [])
    if not isinstance(rounds, list) or not all(isinstance(one, Mapping) for one in rounds):
        raise PresetError("rounds is not a list of tables; write [[rounds]] above the settings of each")
    settings = {**record, "rounds": tuple(Round(**_settings(Round, one)) for one in rounds)}
    for name in ("shrink", "enlarge"):
        shares = record.get(name, {"cubic": 1.0})
        if not isinstance(shares, Mapping) or not set(shares) <= set(KERNELS):
            raise PresetError(f"{name} is {shown(shares)}, expected fractions by kernel: {', '.join(KERNELS)}")
        settings[name] = tuple(_number(shares.get(kernel, 0.0)) for kernel in KERNELS)
    return Preset(**_settings(Preset, settings))


def _settings(kind: type, record: Mapping[str, Any]) -> dict[str, Any]:
    known = [field.name for field in dataclasses.fields(kind)]
    if unknown := sorted(set(record) - set(known)):
        raise PresetError(f"unknown setting {shown(unknown[0])}, expected {', '.join(known)}")
    return {
        name: tuple(map(_number, value)) if isinstance(value, list) else _number(value)
        for name, value in record.items()
    }


def _number(value: Any) -> Any:
    """Whole numbers as floats, so that 1 and 1.0 have one digest."""
    try:
        return float(value) if type(value) is int else value
    except OverflowError:  # TOML's integers have no limit
        return math.inf if value > 0 else -math.inf
