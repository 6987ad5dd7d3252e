"""The data loader: an endless, resumable stream of training batches."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
import torch

from pipeline.degradation.parameters import parameters
from pipeline.load.ahead import ReadAhead, check_images
from pipeline.load.decoder import THREAD_LIMIT, Decoder, checked_device, default_threads
from pipeline.load.degrade import Mode
from pipeline.load.degrade_views import degrade_on_cpu, degrade_on_gpu
from pipeline.load.prefetch import ShardPrefetch
from pipeline.load.sampler import Draw, LoaderState
from pipeline.load.sequential import sampler_of
from pipeline.load.upload import upload
from pipeline.load.views import ViewSpec, checked_views, view_sizes
from pipeline.spec import spec_of
from shards.arguments import check_argument, check_whole, check_word
from shards.index import EXPECTED_INDEX, ShardIndex, ShardReader


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Batch:
    """One rank's share of a batch, on the loader's device.

    Attributes:
        images: (V, b, S, S, 3) uint8 RGB, 0..255; each image is degraded to its size and back.
        labels: (b,) int64, the identity of ``images[:, i]``; distinct over all ranks.
        sizes: (V, b) int64 on the CPU, px; S for an image that is not degraded.
        rows: (V, b) int64 on the CPU, rows of the images in the index.
        originals: as ``images``, flipped as they are, but not degraded; None if they were not asked for.
        state: position in the stream after this batch, for checkpoints.
    """

    images: torch.Tensor
    labels: torch.Tensor
    sizes: np.ndarray
    rows: np.ndarray
    state: LoaderState
    originals: torch.Tensor | None = None

    def __repr__(self) -> str:
        shape, device = tuple(self.images.shape), self.images.device
        return f"Batch(images {shape} uint8 on {device}, epoch {self.state.epoch}, step {self.state.step})"


class Loader:
    """Endless iterator over batches, and a context manager that starts and stops DALI.

    Threads may share an open loader: each batch goes to one of them. Processes may not.
    """

    def __init__(
        self,
        index: ShardIndex,
        *,
        batch_size: int,
        views: Sequence[ViewSpec] = ((128, 128), (8, 8), (12, 12), (16, 16)),
        seed: int = 0,
        mode: Mode = "fast",
        device: str = "cpu",
        threads: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        resume: dict[str, Any] | None = None,
        originals: bool = False,
        window: int | None = None,
    ) -> None:
        """
        Args:
            batch_size: identities per batch over all ranks.
            views: minimum and maximum size of each view, px. Each view draws one image of the identity and a size,
                uniformly from this range, to degrade it to. Sizes of at least that of the crops do not degrade. A third
                value, such as ``"surveillance"`` or ``"mine.toml"``, is the preset of ``pipeline.degradation.presets``
                by which it is degraded realistically.
            mode: as for ``pipeline.load.degrade.degrade``, of views without a preset.
            device: ``cpu``, ``cuda`` or ``cuda:N``. On a GPU, nvJPEG decodes and the batch stays there.
            threads: CPU threads of DALI. Default: the cores that this process may use, divided by the processes that
                torchrun started on this machine, at most 16.
            resume: ``state.to_dict()`` of the last consumed batch, of a run with any number of ranks.
            originals: batches also have the images before degradation.
            window: sequential order: the number of shards to draw from at a time, see ``SequentialSampler``. None: random
                order, from the whole set.

        Raises:
            SamplerError: the batch size does not fit the data or the ranks, or ``resume`` belongs to another stream.
            PresetError: there is no such preset, or its file cannot be used.
            TypeError, ValueError: an argument of a wrong type or value.
        """
        check_argument(isinstance(index, ShardIndex), "index", index, EXPECTED_INDEX)
        expected = "the dict that batch.state.to_dict() returns"
        check_argument(isinstance(resume, Mapping | None), "resume", resume, expected)
        check_word("mode", mode, get_args(Mode))
        threads = default_threads() if threads is None else threads
        shards = 1 if window is None else window
        for name, value in {"batch_size": batch_size, "window": shards}.items():
            check_whole(name, value, 1)
        check_whole("threads", threads, 1, THREAD_LIMIT)
        check_whole("seed", seed, 0)
        check_whole("rank", rank, 0, check_whole("world_size", world_size, 1) - 1)
        self._index, self._mode = index, mode
        self._views = checked_views(views)
        self._size = spec_of(index.manifest).size
        self._device, self._threads = checked_device(device), threads
        start = LoaderState(
            seed=seed,
            global_batch=batch_size,
            views=len(self._views),
            index_digest=index.manifest.index_digest,
            window=window or 0,
        )
        self._sampler = sampler_of(index, start, rank=rank, world_size=world_size)
        self._consumed = start if resume is None else start.resumed(resume)
        self._sampler.check(self._consumed)
        self._pending: deque[Draw] = deque()
        self._originals, self._is_first = originals, rank == 0
        self._decoder: Decoder | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Loader:
        if self._decoder is not None:
            raise RuntimeError("the loader is open already: make another one for another stream of batches")
        self._pending.clear()  # batches that an earlier use decoded ahead are decoded again
        share = self._consumed.global_batch // self._sampler.world_size
        self._shape = (len(self._views), share, self._size, self._size, 3)
        start = (self._sampler, self._consumed)
        self._lock, self._process = threading.Lock(), os.getpid()
        with contextlib.ExitStack() as stack:
            self._prefetch: ShardPrefetch | None = None
            if self._index.cache:
                self._prefetch = stack.enter_context(ShardPrefetch(self._index, *start, report=self._is_first))
            self._ahead = stack.enter_context(ReadAhead(self._index, ShardReader(self._index), *start))
            images = share * len(self._views)
            self._decoder = Decoder(self._feed, self._device, images=images, threads=self._threads)
            stack.callback(self._decoder.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._decoder = None
        self._stack.close()

    @property
    def state(self) -> LoaderState:
        """Position in the stream after the last batch."""
        return self._consumed

    def __repr__(self) -> str:
        views = tuple(view.shown for view in self._views)
        at = f"epoch {self._consumed.epoch}, step {self._consumed.step}{'' if self._decoder else ', closed'}"
        return (
            f"Loader({self._index!r}, batch_size={self._consumed.global_batch}, views={views},"
            f" device={str(self._device)!r}: {at})"
        )

    def __iter__(self) -> Loader:
        return self

    def __next__(self) -> Batch:
        """The next batch.

        Raises:
            ShardError: an image is damaged or has another size; the message names shard and key.
            RuntimeError: outside the ``with`` block, or in another process than it.
        """
        if self._decoder is None:
            raise RuntimeError(_CLOSED)
        if os.getpid() != self._process:  # a fork has none of the threads, and would wait for them
            raise RuntimeError(
                "the loader was opened in another process, whose threads this one lacks: open a loader here; it needs no"
                " DataLoader around it"
            )
        with self._lock:
            return self._next()

    def _next(self) -> Batch:
        if self._decoder is None:  # another thread has closed it
            raise RuntimeError(_CLOSED)
        try:
            batch = self._batch(self._decoded(self._decoder), self._pending.popleft())
            self._decoder.queued()
            self._consumed = batch.state
        except BaseException:
            self.__exit__()  # after an interruption, images and labels might no longer match
            raise
        return batch

    def _decoded(self, decoder: Decoder) -> torch.Tensor:
        """(V, b, S, S, 3) crops of the next batch. Raises: ShardError: an image cannot be decoded or has another size."""
        try:
            return decoder.run().reshape(self._shape)
        except RuntimeError:
            with ShardReader(self._index) as reader:
                for draw in self._pending:
                    check_images(self._index, reader, draw.rows.ravel())
            raise

    def _batch(self, crops: torch.Tensor, draw: Draw) -> Batch:
        """The batch of (V, b, S, S, 3) ``crops``."""
        sizes = view_sizes(self._views, draw.size_draws, self._size)
        labels = self._index.labels[draw.classes].astype(np.int64)
        drawn = self._drawn(np.minimum(sizes, self._size - 1), draw.flips)
        arrays = {"labels": labels, "sizes": sizes, "flips": draw.flips}
        arrays |= {f"{name} {number}": value for number, found in enumerate(drawn) for name, value in found.items()}
        given = upload(arrays, self._device)
        values = [{name: given[f"{name} {number}"] for name in found} for number, found in enumerate(drawn)]
        images = _empty_like(crops)  # DALI reuses the buffer of the crops
        if crops.is_cuda:
            degrade_on_gpu(images, crops, self._views, values, sizes=given["sizes"], flips=given["flips"])
        else:
            degrade_on_cpu(images, crops, self._views, values, sizes=sizes, flips=draw.flips, mode=self._mode)
        mirrored = given["flips"][..., None, None, None]
        return Batch(
            images=images,
            labels=given["labels"],
            sizes=sizes,
            rows=draw.rows,
            state=self._sampler.after(self._consumed),
            originals=torch.where(mirrored, crops.flip(3), crops) if self._originals else None,
        )

    def _drawn(self, sizes: np.ndarray, flips: np.ndarray) -> list[dict[str, np.ndarray]]:
        """What the images of each view draw from its preset in the batch that is being made; without one, nothing."""
        at = self._consumed
        return [
            parameters(view.preset, self._sampler.degradation(at.epoch, at.step, number), sizes[number], flips[number])
            if view.preset
            else {}
            for number, view in enumerate(self._views)
        ]

    def _feed(self) -> np.ndarray:
        """The JPEGs of the next batch, (V * b, bytes) uint8, padded with zeros. DALI calls this ahead of ``__next__``."""
        batch = self._ahead.next()
        self._pending.append(batch.draw)
        if self._prefetch:
            self._prefetch.advance()
        return batch.jpegs  # DALI copies them


_CLOSED = (
    "the loader is closed: use it in a with block, which starts and stops DALI:"
    " with Loader(index, batch_size=128) as batches: ..."
)


def _empty_like(images: torch.Tensor) -> torch.Tensor:
    """``torch.empty_like``. On the CPU NumPy allocates: it uses huge pages, which saves thousands of page faults."""
    return torch.empty_like(images) if images.is_cuda else torch.from_numpy(np.empty(images.shape, np.uint8))
