"""Moves the small arrays of a batch to the loader's device, all in one copy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

ALIGNMENT = 16  # bytes, of each array


def upload(arrays: Mapping[str, np.ndarray], device: torch.device) -> dict[str, torch.Tensor]:
    """The arrays on ``device``. On a CPU they share the memory of ``arrays``.

    To a GPU goes one copy, from pinned memory, which does not wait. PyTorch keeps the pinned block until the copy has
    run, and then uses it again: its allocator of pinned memory records an event for each copy that does not block.
    """
    if device.type != "cuda":
        return {name: torch.from_numpy(values) for name, values in arrays.items()}
    packed = torch.empty(packed_size(arrays), dtype=torch.uint8, pin_memory=True)
    pack(arrays, packed.numpy())
    return unpack(packed.to(device, non_blocking=True), arrays)


def packed_size(arrays: Mapping[str, np.ndarray]) -> int:
    """Bytes of ``arrays`` one after another, each at a multiple of ``ALIGNMENT``."""
    return sum(_aligned(values.nbytes) for values in arrays.values())


def pack(arrays: Mapping[str, np.ndarray], packed: np.ndarray) -> None:
    """Copies ``arrays`` into (``packed_size(arrays)``,) uint8 ``packed``."""
    start = 0
    for values in arrays.values():
        packed[start : start + values.nbytes].view(values.dtype).reshape(values.shape)[...] = values
        start += _aligned(values.nbytes)


def unpack(packed: torch.Tensor, arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Tensors of the types and shapes of ``arrays`` in the memory of ``packed``."""
    found, start = {}, 0
    for name, values in arrays.items():
        dtype = torch.from_numpy(values[:0]).dtype
        found[name] = packed[start : start + values.nbytes].view(dtype).reshape(values.shape)
        start += _aligned(values.nbytes)
    return found


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
