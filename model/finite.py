"""Checks that losses, gradients and states are finite."""

from __future__ import annotations

from collections.abc import Iterable

import torch


def all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """True if no value is NaN or infinite. Reads each tensor once; synchronises with each device once."""
    extremes: dict[torch.device, list[torch.Tensor]] = {}
    for tensor in tensors:
        if tensor.is_floating_point() and tensor.numel():  # a rank may have no rows of a sharded head
            lowest, highest = tensor.detach().aminmax()
            extremes.setdefault(tensor.device, []).extend((lowest.double(), highest.double()))
    return all(bool(torch.stack(values).isfinite().all()) for values in extremes.values())
