"""The views of an identity: the sizes and the degradation that each may have."""

from __future__ import annotations

import operator
from collections.abc import Sequence

from pipeline.degradation.presets import Degradation, check_size, find_degradation
from shards.arguments import shown

ViewSpec = tuple[int, int] | tuple[int, int, str | Degradation]
"""Smallest and largest size of a view in px, and the preset of its degradation, if there is one."""


def checked_views(
    views: Sequence[ViewSpec],
) -> tuple[tuple[tuple[int, int], ...], tuple[Degradation | None, ...]]:
    """Sizes and degradation of each view. Raises: TypeError, ValueError: other values; PresetError: no such preset."""
    expected = "expected a smallest and a largest size in px for each view, such as ((128, 128), (8, 32))"
    try:
        pairs = tuple((operator.index(low), operator.index(high)) for low, high, *_ in views)
        given = [view[2:] for view in views]
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
    return pairs, tuple(find_degradation(one) if isinstance(one, str) else one for one in found)
