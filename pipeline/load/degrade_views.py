"""Degrades the crops of a batch, view by view: on a GPU without a wait or an upload for each size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pipeline.degradation.realistic import degrade_as
from pipeline.load.degrade import Mode, degrade_each, degrade_into, keep_whole
from pipeline.load.views import View

Values = dict[str, torch.Tensor]


def degrade_on_cpu(
    out: torch.Tensor,
    crops: torch.Tensor,
    views: Sequence[View],
    values: Sequence[Values],
    *,
    sizes: np.ndarray,
    flips: np.ndarray,
    mode: Mode,
) -> None:
    """Degrades and flips the images of each view, those of each size together.

    With a preset, all that are degraded are processed together.

    Args:
        out: (V, b, S, S, 3) uint8, written.
        crops: (V, b, S, S, 3) uint8.
        values: what the images of each view draw from its preset, see ``parameters``; empty without one.
        sizes: (V, b) px; S for an image that is not degraded.
        flips: (V, b) bool.
        mode: as for ``degrade``.
    """
    side = crops.shape[2]
    for number, view in enumerate(views):
        own, left = sizes[number], sizes[number]
        if view.preset is not None:
            degrade_as(out[number], crops[number], view.preset, values[number], sizes=view.below(side))
            left = own[own == side]
        for size in np.unique(left).tolist():
            _degrade_group(out[number], crops[number], np.flatnonzero(own == size), size, flips[number], mode)


def _degrade_group(
    out: torch.Tensor, crops: torch.Tensor, indices: np.ndarray, size: int, flips: np.ndarray, mode: Mode
) -> None:
    """Degrades the images of a view whose ``indices`` are given to one size."""
    group_flips = torch.from_numpy(flips[indices])
    if len(indices) == len(crops):
        degrade_into(out, crops, size=size, flips=group_flips, mode=mode)
        return
    where = torch.from_numpy(indices)
    group = crops.index_select(0, where)
    degrade_into(group, group, size=size, flips=group_flips, mode=mode)
    out.index_copy_(0, where, group)


def degrade_on_gpu(
    out: torch.Tensor,
    crops: torch.Tensor,
    views: Sequence[View],
    values: Sequence[Values],
    *,
    sizes: torch.Tensor,
    flips: torch.Tensor,
) -> None:
    """As ``degrade_on_cpu``, exactly, with a number of operations that does not depend on the sizes.

    ``sizes`` (V, b) int64 and ``flips`` (V, b) bool are on the device. What is done follows from ``views`` alone: the
    host never asks the GPU, and sends nothing for each size.
    """
    side = crops.shape[2]
    for number, view in enumerate(views):
        mine, images, its_sizes, its_flips = out[number], crops[number], sizes[number], flips[number]
        below = view.below(side)
        if view.low >= side:
            degrade_into(mine, images, size=side, flips=its_flips, mode="exact")
            continue
        if view.preset is not None:
            degrade_as(mine, images, view.preset, values[number], sizes=below)
        elif view.low == view.high:
            degrade_into(mine, images, size=view.low, flips=its_flips, mode="exact")
        else:
            degrade_each(mine, images, sizes=its_sizes.clamp(max=below[-1]), possible=below, flips=its_flips)
        if view.high >= side:
            keep_whole(mine, images, whole=its_sizes == side, flips=its_flips)
