"""The views of an identity: the sizes and the degradation that each may have."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.degradation.presets import Degradation, check_size, find_degradation
from pipeline.degradation.settings import Preset
from shards.arguments import shown

ViewSpec = tuple[int, int] | tuple[int, int, str | Degradation]
"""Smallest and largest size of a view in px, and the preset of its degradation, if there is one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class View:
    """What the images of a view may be degraded to.

    Attributes:
        low, high: smallest and largest size, px. A size of at least that of the crops does not degrade.
        degradation: how; None: by the bicubic filter alone.
    """

    low: int
    high: int
    degradation: Degradation | None

    @property
    def preset(self) -> Preset | None:
        return None if self.degradation is None else self.degradation.preset

    @property
    def shown(self) -> tuple[int | str, ...]:
        """As ``ViewSpec``, with the name of the preset."""
        return (self.low, self.high, *([self.degradation.label] if self.degradation else []))

    def below(self, side: int) -> range:
        """The sizes that degrade crops of ``side`` px; that below theirs, if there is none."""
        return range(min(self.low, side - 1), min(self.high, side - 1) + 1)


def view_sizes(views: Sequence[View], size_draws: np.ndarray, side: int) -> np.ndarray:
    """(V, b) int64 sizes of the images of one batch, px, from uniform (V, b) ``size_draws`` below 2**31."""
    low, high = np.array([(view.low, view.high) for view in views], np.uint64).T[..., None]
    return np.minimum(low + (size_draws * (high - low + np.uint64(1)) >> np.uint64(31)), side).astype(np.int64)


def checked_views(views: Sequence[ViewSpec]) -> tuple[View, ...]:
    """The views. Raises: TypeError, ValueError: other values; PresetError: no such preset."""
    expected = "expected a smallest and a largest size in px for each view, such as ((128, 128), (8, 32))"
    try:
        several: tuple[tuple[Any, ...], ...] = tuple(map(tuple, views))  # of arrays and generators, too
        pairs = tuple((operator.index(low), operator.index(high)) for low, high, *_ in several)
        given = [view[2:] for view in several]
    except (TypeError, ValueError):
        raise TypeError(f"views is {shown(views)}, {expected}") from None
    if not pairs:
        raise TypeError(f"views is {views!r}, {expected}")
    if not all(2 <= low <= high for low, high in pairs):
        raise ValueError(f"views is {views!r}, expected sizes of at least 2 px, the smaller first")
    if not all(len(rest) < 2 and all(isinstance(one, str | Degradation) for one in rest) for rest in given):
        raise TypeError(f"views is {views!r}, expected a preset as the third value, such as (8, 32, 'surveillance')")
    found = [one for rest in given for one in rest or (None,)]
    for (_, high), one in zip(pairs, found, strict=True):
        if one is not None:
            check_size(high)
    degradations = [find_degradation(one) if isinstance(one, str) else one for one in found]
    return tuple(
        View(low=low, high=high, degradation=one) for (low, high), one in zip(pairs, degradations, strict=True)
    )
