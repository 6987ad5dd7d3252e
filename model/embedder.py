"""Embeds images in batches: the one thing that benchmarks need of a network."""

from __future__ import annotations

import concurrent.futures as futures
import math
from typing import Literal

import numpy as np
import torch
from torch import nn

from model.inputs import normalise, on_device

Precision = Literal["fp32", "bf16"]
_PIECE = 16  # images that a CPU embeds at a time, at most: feature maps stay in its cache, and weights are laid out once for all
_REDUCED: dict[Precision, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16}


class Embedder:
    """A callable from images to embeddings: (N, S, S, 3) uint8 RGB -> (N, 512) float32, not normalised.

    Args:
        precision: of the network's convolutions and products; the embeddings are float32 with either.
        mean, std: of pixels in 0..1, as the network's preprocessing spec states them.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        device: str = "cpu",
        precision: Precision = "fp32",
        mean: float = 0.5,
        std: float = 0.5,
    ) -> None:
        self._backbone = on_device(backbone.eval(), device)
        self._device, self._reduced = device, _REDUCED[precision]
        self._mean, self._std = mean, std

    def __call__(self, images: np.ndarray) -> np.ndarray:
        if torch.device(self._device).type != "cpu":
            return self._embed(images)
        threads = torch.get_num_threads()
        pieces = np.array_split(images, _pieces(len(images), threads))
        at_once = min(threads, len(pieces))
        if at_once == 1:
            return np.concatenate([self._embed(piece) for piece in pieces])
        return self._embed_at_once(pieces, at_once, threads)

    def _embed_at_once(self, pieces: list[np.ndarray], at_once: int, threads: int) -> np.ndarray:
        """Pieces side by side: threads that share a piece wait for each other at every layer, and for the slowest of
        them wherever something else runs on its core."""
        try:
            with futures.ThreadPoolExecutor(
                at_once, initializer=torch.set_num_threads, initargs=(threads // at_once,)
            ) as pool:
                return np.concatenate(list(pool.map(self._embed, pieces)))
        finally:
            torch.set_num_threads(threads)  # the pool's number is also what later threads would begin with

    def _embed(self, images: np.ndarray) -> np.ndarray:
        kind = torch.device(self._device).type
        with torch.inference_mode(), torch.autocast(kind, self._reduced, enabled=self._reduced is not None):
            inputs = normalise(torch.from_numpy(images).to(self._device), self._mean, self._std)
            return self._backbone(inputs).float().cpu().numpy()


def _pieces(images: int, threads: int) -> int:
    """How many: as many for each thread, or some would end without work; of few images one each."""
    return max(min(math.ceil(images / (_PIECE * threads)) * threads, images), 1)
