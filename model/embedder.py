"""Batched embedding of images with a trained backbone."""

from __future__ import annotations

import concurrent.futures as futures
import math
from typing import Literal

import numpy as np
import torch
from torch import nn

from model.inputs import normalise, on_device
from pipeline.spec import COLORS, Number
from shards.arguments import check_argument, check_number, check_word, shown

Precision = Literal["fp32", "bf16"]
MAX_CHUNK_IMAGES = 16  # per forward pass on a CPU: feature maps of more do not fit its cache
_AUTOCAST_DTYPES: dict[Precision, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16}


class Embedder:
    """Callable from images to embeddings: (N, S, S, 3) uint8 RGB -> (N, D) float32, not normalised.

    Args:
        backbone: is moved to ``device`` and put in evaluation mode.
        device: ``cpu`` or ``cuda``.
        precision: of convolutions and matrix products. Embeddings are float32 in either case.
        mean: subtracted from pixels in 0..1, a number or three; the network's preprocessing spec states it.
        std: divides them after that.
        color: RGB or BGR, the order of the channels that the backbone takes.

    Raises:
        TypeError, ValueError: an argument of a wrong type or value.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        device: str = "cpu",
        precision: Precision = "fp32",
        mean: Number = 0.5,
        std: Number = 0.5,
        color: str = "RGB",
    ) -> None:
        expected = "a module, as load_network(path).backbone"
        check_argument(isinstance(backbone, nn.Module), "Embedder: backbone", backbone, expected)
        for name, values in (("mean", mean), ("std", std)):
            for value in values if isinstance(values, tuple) and len(values) == 3 else (values,):
                check_number(f"Embedder: {name}", value)
        check_word("Embedder: color", color, COLORS)
        if not isinstance(precision, str) or precision not in _AUTOCAST_DTYPES:
            raise ValueError(f"unknown precision {shown(precision)}; choose from {', '.join(_AUTOCAST_DTYPES)}")
        self._backbone = on_device(backbone.eval(), device)
        self._device, self._autocast_dtype = torch.device(device), _AUTOCAST_DTYPES[precision]
        self._mean, self._std, self._color = mean, std, color

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Raises: TypeError: ``images`` have another type or shape."""
        good = isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim == 4
        good = good and images.shape[3] == 3 and images.shape[1] == images.shape[2]
        check_argument(good, "images", images, "a ndarray of uint8 and shape (N, S, S, 3), RGB")
        images = np.ascontiguousarray(images)  # PyTorch takes no reversed channels
        if self._device.type != "cpu":
            return self._embed(images)
        threads = torch.get_num_threads()
        chunks = np.array_split(images, _chunk_count(len(images), threads))
        workers = min(threads, len(chunks))
        if workers == 1:
            return np.concatenate([self._embed(chunk) for chunk in chunks])
        return self._embed_parallel(chunks, workers, threads)

    def _embed_parallel(self, chunks: list[np.ndarray], workers: int, threads: int) -> np.ndarray:
        """Embeds one chunk per worker. Threads that share a chunk would synchronise at every layer."""
        try:
            with futures.ThreadPoolExecutor(
                workers, initializer=torch.set_num_threads, initargs=(threads // workers,)
            ) as pool:
                return np.concatenate(list(pool.map(self._embed, chunks)))
        finally:
            torch.set_num_threads(threads)  # the workers' setting is also the default of threads started later

    def _embed(self, images: np.ndarray) -> np.ndarray:
        dtype = self._autocast_dtype
        with torch.inference_mode(), torch.autocast(self._device.type, dtype, enabled=dtype is not None):
            inputs = normalise(torch.from_numpy(images).to(self._device), self._mean, self._std, color=self._color)
            return self._backbone(inputs).float().cpu().numpy()


def _chunk_count(images: int, threads: int) -> int:
    """Number of chunks: a multiple of ``threads``, so that no thread idles; at most one per image."""
    return max(min(math.ceil(images / (MAX_CHUNK_IMAGES * threads)) * threads, images), 1)
