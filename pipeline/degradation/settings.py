"""Settings of realistic degradation: what may happen to a face, how strongly and how often.

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
from typing import Any

from shards.arguments import shown
from shards.errors import LrfrError

Range = tuple[float, float]
"""Smallest and largest value; each image draws one of them, uniformly."""

KERNELS = ("area", "linear", "cubic", "lanczos", "nearest")


class PresetError(LrfrError):
    """A preset that is not known, or is invalid."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Round:
    """One round of blur, noise and compression. Lengths in px of the small image.

    Attributes:
        gaussian, anisotropic, motion, sinc: fractions of the images that are blurred in this way; the rest is not blurred.
        sigma: standard deviation of a Gaussian, the larger one of an anisotropic one, px.
        aspect: the smaller standard deviation of an anisotropic Gaussian, divided by the larger.
        motion_length: path of the camera or the face while the shutter is open, px.
        cutoff: of the sinc filter, radians per px: at pi hardly anything is lost; the lower, the more edges ring.
        noise: standard deviation of the noise on black, grey levels: that of the electronics.
        shot_noise: standard deviation of the noise that white has in addition, grey levels: that of the light.
        chroma_noise: noise of the two colour planes, relative to that of the luminance: 0 is grey noise, 0.95 is about the
            noise of independent colour channels.
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
        shrink, enlarge: fraction of the images that each kernel resizes, in the order of ``KERNELS``.
        gamma: exponent of the tone curve; below 1 brightens.
        contrast: factor of the distance to middle grey.
        brightness: added, grey levels.
        interlaced: fraction of the images in which every other line is of another moment (interlaced video).
        field_shift: largest movement of the face between the two moments, px of the small image.
        rounds: one or two.
        first_size: size of the first of two rounds, relative to the second; at most the largest size of the view.
        twice: fraction of the images that have both of two rounds; the others have the second alone.
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
        """16 hexadecimal digits of the SHA-256 of the settings."""
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
