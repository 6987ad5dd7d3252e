"""From bytes to network input, on the device where the bytes are."""

from __future__ import annotations

import torch


def normalise(images: torch.Tensor, mean: float = 0.5, std: float = 0.5) -> torch.Tensor:
    """(N, S, S, 3) uint8 RGB -> (N, 3, S, S) float32 ``(x / 255 - mean) / std``, in channels-last memory."""
    return images.permute(0, 3, 1, 2).float().div_(255.0).sub_(mean).div_(std)
