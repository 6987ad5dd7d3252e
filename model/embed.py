"""Embeds images in batches: the one thing that benchmarks need of a network."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from model.inputs import normalise, on_device


class Embedder:
    """A callable from images to embeddings: (N, S, S, 3) uint8 RGB -> (N, 512) float32, not normalised."""

    def __init__(self, backbone: nn.Module, *, device: str = "cpu") -> None:
        self._backbone = on_device(backbone.eval(), device)
        self._device = device

    def __call__(self, images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            inputs = normalise(torch.from_numpy(images).to(self._device))
            return self._backbone(inputs).float().cpu().numpy()
