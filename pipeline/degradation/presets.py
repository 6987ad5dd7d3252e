"""Presets of realistic degradation: what may happen to a face, how strongly and how often.

The ranges follow what the literature draws for its training data, and pictures of low-resolution faces.

Source: Wang et al., Real-ESRGAN, ICCVW 2021, and Zhang et al., BSRGAN, ICCV 2021 (blur, resizing by a random kernel, noise
and JPEG in two rounds, sinc filters); Foi et al., Practical Poissonian-Gaussian noise modeling, TIP 2008 (variance of a
sensor's noise: one part constant, one proportional to the signal).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shards.arguments import shown
from shards.errors import LrfrError

Range = tuple[float, float]
"""Smallest and largest value; each image draws one of them, uniformly."""

MAX_SIZE_PX = 128
KERNELS = ("area", "linear", "cubic", "lanczos", "nearest")


class PresetError(LrfrError):
    """A preset that is not known, or is invalid."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Round:
    """One round of blur, noise and compression. Lengths in px of the small image.

    Attributes:
        gaussian, anisotropic, motion, sinc: how often an image is blurred so, fractions; the rest is not blurred.
        sigma: standard deviation of a Gaussian, the larger one of an anisotropic one, px.
        aspect: the smaller standard deviation of an anisotropic Gaussian by the larger.
        motion_length: way of the camera or the face while the shutter is open, px.
        cutoff: of the sinc filter, radians by px: at pi hardly anything is lost; the lower, the more edges ring.
        noise: standard deviation of the noise where it is black, grey levels: the electronics' part.
        shot_noise: standard deviation of what is added where it is white, grey levels: the light's part.
        chroma_noise: noise of the two colour planes, by that of the luminance: 0 is grey noise, 0.95 about that of
            independent colour channels.
        quality: of the JPEG compression (4:2:0), 1 to 100.
    """

    gaussian: float = 0.0
    anisotropic: float = 0.0
    motion: float = 0.0
    sinc: float = 0.0
    sigma: Range = (0.3, 1.0)
    aspect: Range = (0.3, 1.0)
    motion_length: Range = (1.0, 3.0)
    cutoff: Range = (1.5, 3.0)
    noise: Range = (0.0, 0.0)
    shot_noise: Range = (0.0, 0.0)
    chroma_noise: Range = (0.0, 0.95)
    quality: Range = (90.0, 100.0)

    def __post_init__(self) -> None:
        """Raises: PresetError: a value is not a number, or out of its range."""
        for name in ("gaussian", "anisotropic", "motion", "sinc"):
            _check(name, getattr(self, name), 0, 1)
        _check("gaussian, anisotropic, motion and sinc together", sum(self.blurs), 0, 1 + 1e-9)
        limits = {"sigma": (0.05, 3), "aspect": (0.05, 1), "motion_length": (0, 6), "cutoff": (0.5, math.pi)}
        limits |= {"noise": (0, 64), "shot_noise": (0, 64), "chroma_noise": (0, 4), "quality": (1, 100)}
        for name, (low, high) in limits.items():
            _check_range(self, name, low, high)

    @property
    def blurs(self) -> tuple[float, ...]:
        return self.gaussian, self.anisotropic, self.motion, self.sinc


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """What may happen to an image on its way to a small size and back.

    In this order: resized to the small size, light and tone, blur, interlacing, noise, JPEG, resized back. Of two rounds
    the first takes place at a larger size.

    Attributes:
        shrink, enlarge: how often each kernel resizes, fractions of 1 in the order of ``KERNELS``.
        gamma: exponent of the tone curve; below 1 brightens.
        contrast: factor of the distance to middle grey.
        brightness: added, grey levels.
        interlaced: how often every other line is of another moment, a fraction.
        field_shift: largest way of the face between the two moments, px of the small image.
        rounds: one or two.
        first_size: size of the first of two rounds, by that of the second; at most the largest size of the view.
        twice: how often an image has both of two rounds, a fraction; the others have the second alone.
    """

    shrink: tuple[float, ...]
    enlarge: tuple[float, ...]
    gamma: Range = (1.0, 1.0)
    contrast: Range = (1.0, 1.0)
    brightness: Range = (0.0, 0.0)
    interlaced: float = 0.0
    field_shift: float = 1.0
    first_size: Range = (1.0, 2.0)
    twice: float = 1.0
    rounds: tuple[Round, ...]

    def __post_init__(self) -> None:
        """Raises: PresetError: a value is not a number, or out of its range."""
        for name in ("shrink", "enlarge"):
            shares = getattr(self, name)
            if not isinstance(shares, tuple) or len(shares) != len(KERNELS):
                raise PresetError(f"{name} is {shown(shares)}, expected {len(KERNELS)} fractions: {', '.join(KERNELS)}")
            for share in shares:
                _check(name, share, 0, 1)
            if abs(sum(shares) - 1) > 1e-6:
                raise PresetError(f"{name}: the sum of the fractions is {sum(shares):.6g}, expected 1")
        limits = {"gamma": (0.2, 5), "contrast": (0, 4), "brightness": (-255, 255), "first_size": (1, 4)}
        for name, (low, high) in limits.items():
            _check_range(self, name, low, high)
        _check("interlaced", self.interlaced, 0, 1)
        _check("field_shift", self.field_shift, 0, 1)
        _check("twice", self.twice, 0, 1)
        if len(self.rounds) not in (1, 2):
            raise PresetError(f"{len(self.rounds)} rounds, expected one or two: write [[rounds]] above each")

    @functools.cached_property
    def digest(self) -> str:
        """16 hexadecimal digits that tell one content from another."""
        content = dataclasses.asdict(self)
        if self.twice == 1:  # digests are those of before there was this setting
            del content["twice"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _check_range(owner: Any, name: str, low: float, high: float) -> None:
    """Raises: PresetError: a range is not two numbers between two limits, the smaller first."""
    found = getattr(owner, name)
    if not isinstance(found, tuple) or len(found) != 2:
        raise PresetError(f"{name} is {shown(found)}, expected two numbers, the smaller first")
    for number in found:
        _check(name, number, low, high)
    if found[0] > found[1]:
        raise PresetError(f"{name} is {list(found)}, expected the smaller number first")


def _check(name: str, number: Any, low: float, high: float) -> None:
    if type(number) not in (int, float) or not low <= number <= high:
        raise PresetError(f"{name} is {shown(number)}, expected {low:.4g} to {high:.4g}")


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


def find_degradation(text: str) -> Degradation:
    """Finds a preset by its name or its file, ``mine.toml``. With a digest, ``mine.toml#..``, the file is read later.

    Raises:
        PresetError: there is none, or the file cannot be used.
    """
    if match := re.fullmatch(r"(.+\.toml)#([0-9a-f]{16})", text, re.DOTALL):
        return Degradation(match[1], match[2])
    return Degradation(text, _preset_of(text).digest)


def _preset_of(name: str) -> Preset:
    if name in PRESETS:
        return PRESETS[name]
    if not name.endswith(".toml"):
        raise PresetError(f"degradation {name!r} is unknown; choose {', '.join(PRESETS)} or a file NAME.toml")
    from pipeline.sources.toml_file import read_toml

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
        raise PresetError("rounds is no list of tables; write [[rounds]] above the settings of each")
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
