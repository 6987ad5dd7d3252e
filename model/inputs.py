"""From bytes to network input, on the device where the bytes are."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def normalise(images: torch.Tensor, mean: float = 0.5, std: float = 0.5) -> torch.Tensor:
    """(N, S, S, 3) uint8 RGB -> (N, 3, S, S) float32 ``(x / 255 - mean) / std``, in channels-last memory."""
    return images.permute(0, 3, 1, 2).float().div_(255.0).sub_(mean).div_(std)


def on_device(module: Module, device: str) -> Module:
    """Moves a network to ``device`` with its weights in channels-last memory, as ``normalise`` lays out its input."""
    return module.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
