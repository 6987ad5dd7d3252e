"""Batched embedding of images with a trained backbone."""

from __future__ import annotations

import concurrent.futures as futures
import math
import re
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import torch
from torch import nn

from model.errors import one_line
from model.graph import Graph
from model.inputs import normalise, on_device
from pipeline.spec import COLORS, Number
from pipeline.torch_threads import one_thread
from shards.arguments import check_argument, check_number, check_word, shown

Precision = Literal["fp32", "bf16"]
Flip = Literal["none", "mean", "norm-weighted"]
FLIPS = get_args(Flip)
MAX_CHUNK_IMAGES = 16  # per forward pass on a CPU: feature maps of more do not fit its cache
_OTHER_SIZE = re.compile("cannot be multiplied|must match the size")  # in what PyTorch says
_TINY = float(np.finfo(np.float32).tiny)
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
        flip: how the embedding of the mirrored image is added: not at all; the mean of both directions; or weighted by
            the norms of both, which is the direction of their sum. The norm is the mean of both norms.

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
        flip: Flip = "none",
    ) -> None:
        expected = "a module, as load_network(path).backbone"
        check_argument(isinstance(backbone, nn.Module), "Embedder: backbone", backbone, expected)
        for name, values in (("mean", mean), ("std", std)):
            for value in values if isinstance(values, tuple) and len(values) == 3 else (values,):
                check_number(f"Embedder: {name}", value)
        check_word("Embedder: color", color, COLORS)
        if not isinstance(precision, str) or precision not in _AUTOCAST_DTYPES:
            raise ValueError(f"unknown precision {shown(precision)}; choose from {', '.join(_AUTOCAST_DTYPES)}")
        check_word("Embedder: flip", flip, FLIPS)
        self._flip, self._whole = flip, isinstance(backbone, Graph)
        self._backbone = on_device(backbone.eval(), device)
        self._device, self._autocast_dtype = torch.device(device), _AUTOCAST_DTYPES[precision]
        self._mean, self._std, self._color = mean, std, color

    def __repr__(self) -> str:
        settings = f"mean={self._mean}, std={self._std}, color={self._color!r}, flip={self._flip!r}"
        return f"Embedder({type(self._backbone).__name__}, device={str(self._device)!r}, {settings})"

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Raises: TypeError, ValueError: ``images`` have another type, shape or size."""
        return self.start(images)()

    def start(self, images: np.ndarray) -> Callable[[], np.ndarray]:
        """Queues the work for ``images`` on a GPU, and returns a function that waits for their embeddings.

        So the host can prepare and start the next images meanwhile. On a CPU the embeddings are computed here.

        Raises:
            TypeError: ``images`` have another type or shape.
            RuntimeError: the backbone is in training mode.
        """
        good = isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim == 4
        good = good and images.shape[3] == 3 and images.shape[1] == images.shape[2]
        check_argument(good, "images", images, "a ndarray of uint8 and shape (N, S, S, 3), RGB")
        images = np.ascontiguousarray(images)  # PyTorch takes no reversed channels
        images = images if images.flags.writeable else images.copy()  # it warns of memory-mapped arrays
        if self._backbone.training:
            raise RuntimeError("the backbone is in training mode: call its eval() before, and its train() afterwards")
        plain = self._start_images(images)
        if self._flip == "none":
            return plain
        mirrored, flip = self._start_images(np.ascontiguousarray(images[:, :, ::-1])), self._flip
        return lambda: _fused(plain(), mirrored(), flip)

    def _start_images(self, images: np.ndarray) -> Callable[[], np.ndarray]:
        if self._device.type == "cuda":
            return self._queue(images)
        embeddings = self._embed(images) if self._whole else self._embed_chunks(images)
        return lambda: embeddings

    def _queue(self, images: np.ndarray) -> Callable[[], np.ndarray]:
        """Queues upload, network and download: from and to pinned memory, which is what makes copies not wait."""
        embeddings = self._forward(torch.from_numpy(images).pin_memory().to(self._device, non_blocking=True))
        found = torch.empty(embeddings.shape, dtype=embeddings.dtype, pin_memory=True)
        found.copy_(embeddings, non_blocking=True)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(torch.cuda.current_stream(self._device))

        def wait() -> np.ndarray:
            done.synchronize()
            copied: np.ndarray = found.numpy().copy()  # pinned memory is scarce, and used again
            return copied

        return wait

    def _embed_chunks(self, images: np.ndarray) -> np.ndarray:
        """Embeds one chunk per worker. Threads that share a chunk would synchronise at every layer."""
        if len(images) < 2:
            return self._embed(images)
        with one_thread as threads:  # as the workers change the number for threads to come, too
            chunks = np.array_split(images, _chunk_count(len(images), threads))
            workers = min(threads, len(chunks))
            with futures.ThreadPoolExecutor(
                workers, initializer=torch.set_num_threads, initargs=(threads // workers,)
            ) as pool:
                return np.concatenate(list(pool.map(self._embed, chunks)))

    def _embed(self, images: np.ndarray) -> np.ndarray:
        return self._forward(torch.from_numpy(images).to(self._device)).cpu().numpy()

    def _forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, D) float32 embeddings of (N, S, S, 3) uint8 images, on their device."""
        dtype = self._autocast_dtype
        with torch.inference_mode(), torch.autocast(self._device.type, dtype, enabled=dtype is not None):
            inputs = normalise(images, self._mean, self._std, color=self._color)
            try:
                embeddings: torch.Tensor = self._backbone(inputs).float()
            except RuntimeError as error:
                if not _OTHER_SIZE.search(str(error)):
                    raise
                side = images.shape[1]
                raise ValueError(f"images have {side} px, which the network does not take: {one_line(error)}") from None
            return embeddings


def _fused(plain: np.ndarray, mirrored: np.ndarray, flip: Flip) -> np.ndarray:
    """(N, D) fusion of the embeddings of N images and of their mirror images."""
    both = np.stack([plain, mirrored])
    norms = np.linalg.norm(both, axis=2, keepdims=True)
    summed = (both if flip == "norm-weighted" else both / np.maximum(norms, _TINY)).sum(0)
    unit = summed / np.maximum(np.linalg.norm(summed, axis=1, keepdims=True), _TINY)
    fused: np.ndarray = (unit * norms.mean(0)).astype(np.float32)
    return fused


def _chunk_count(images: int, threads: int) -> int:
    """Number of chunks: a multiple of ``threads``, so that no thread idles; at most one per image."""
    return max(min(math.ceil(images / (MAX_CHUNK_IMAGES * threads)) * threads, images), 1)
