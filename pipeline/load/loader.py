"""DALI decodes, flips and degradation follow: an endless, resumable stream of training batches.

The only file that imports DALI.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.utils.dlpack
from nvidia.dali import fn, pipeline_def, types

from pipeline.load.degrade import Mode, degrade_into
from pipeline.load.sampler import Draw, IdentitySampler, LoaderState
from pipeline.spec import spec_of
from shards.index import ShardIndex, ShardReader

_PREFETCH = 2  # batches that DALI decodes ahead


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """One rank's share of a batch, on the loader's device.

    Attributes:
        images: (V, b, S, S, 3) uint8 RGB, 0..255, NHWC; each degraded to its size and back.
        labels: (b,) int64, distinct over all ranks; the identity of ``images[:, i]``.
        sizes: (V, b) int64 on the CPU, px; S for an image that is left as it is.
        state: where the stream stands once this batch is consumed; saved in a checkpoint.
    """

    images: torch.Tensor
    labels: torch.Tensor
    sizes: np.ndarray
    state: LoaderState


class Loader:
    """Iterates over batches for ever; a context manager, which starts DALI on entry and stops it on exit."""

    def __init__(
        self,
        index: ShardIndex,
        *,
        batch_size: int,
        views: Sequence[tuple[int, int]] = ((128, 128), (8, 8), (12, 12), (16, 16)),
        seed: int = 0,
        mode: Mode = "fast",
        device: str = "cpu",
        threads: int = 2,
        rank: int = 0,
        world_size: int = 1,
        resume: dict[str, Any] | None = None,
    ) -> None:
        """
        Args:
            batch_size: identities in a batch over all ranks.
            views: least and greatest size, px, that an image of an identity is degraded to, drawn evenly; each view
                draws an image of its own. Sizes from that of the crops on leave it as it is.
            mode: how to degrade, see ``pipeline.load.degrade``.
            device: ``cpu``, ``cuda`` or ``cuda:N``; on a GPU nvJPEG decodes and the batch stays there.
            threads: DALI's CPU threads.
            resume: the ``state.to_dict()`` of the last batch that was consumed, from any number of ranks.

        Raises:
            SamplerError: the batch does not fit the data or the ranks, or ``resume`` belongs to another stream.
        """
        self._index, self._views, self._mode = index, tuple(views), mode
        self._size = spec_of(index.manifest).size
        self._device, self._threads = _one_device(device), threads
        start = LoaderState(
            seed=seed, global_batch=batch_size, views=len(self._views), index_digest=index.manifest.index_digest
        )
        self._sampler = IdentitySampler(index.first, index.count, start, rank=rank, world_size=world_size)
        self._drawn = self._consumed = start.resumed(resume) if resume else start
        self._pending: deque[Draw] = deque()
        self._reader = ShardReader(index)
        images = batch_size // world_size * len(self._views)
        self._room = np.empty(images * int(index.size.max()), np.uint8)

    @property
    def state(self) -> LoaderState:
        """Where the stream stands: after the last batch that ``next`` returned."""
        return self._consumed

    def __enter__(self) -> Loader:
        self._drawn = self._consumed  # what an earlier use had decoded ahead is decoded again
        self._pending.clear()
        self._held: tuple[Any, torch.cuda.Event] | None = None
        share = self._consumed.global_batch // self._sampler.world_size
        self._pipe = decoder(
            source=self._feed,
            decode_on="mixed" if self._device.type == "cuda" else "cpu",
            batch_size=share * len(self._views),
            num_threads=self._threads,
            device_id=self._device.index,
            prefetch_queue_depth=_PREFETCH,
        )
        self._pipe.build()
        return self

    def __exit__(self, *error: object) -> None:
        self._release()
        del self._pipe  # stops its threads
        self._reader.close()

    def __iter__(self) -> Loader:
        return self

    def __next__(self) -> Batch:
        """The next batch. Raises: ShardError: an image is damaged; the line names shard and key."""
        self._release()
        (decoded,) = self._pipe.run()
        draw = self._pending.popleft()
        size = self._size
        seen = torch.utils.dlpack.from_dlpack(decoded.as_tensor()).reshape(len(self._views), -1, size, size, 3)
        images = _room_like(seen)  # DALI uses its buffer again for a later batch
        sizes = self._sizes(draw.chances, size)
        for view, wanted in enumerate(sizes):
            self._degrade(images[view], seen[view], wanted, draw.flips[view])
        self._hold(decoded)
        self._consumed = self._consumed.next(self._sampler.steps_per_epoch)
        labels = self._upload(self._index.labels[draw.classes].astype(np.int64))
        return Batch(images=images, labels=labels, sizes=sizes, state=self._consumed)

    def _sizes(self, chances: np.ndarray, most: int) -> np.ndarray:
        """(V, b) sizes, px, of one batch."""
        low, high = np.array(self._views, np.uint64).T[..., None]
        return np.minimum(low + (chances * (high - low + np.uint64(1)) >> np.uint64(31)), most).astype(np.int64)

    def _degrade(self, out: torch.Tensor, seen: torch.Tensor, sizes: np.ndarray, flips: np.ndarray) -> None:
        """Degrades the (b, S, S, 3) images of a view from ``seen`` into ``out``, each to its size and flipped or not."""
        for size in np.unique(sizes).tolist():
            places = np.flatnonzero(sizes == size)
            turned = self._upload(flips[places])
            if len(places) == len(sizes):
                degrade_into(out, seen, size=size, flips=turned, mode=self._mode)
                continue
            where = self._upload(places)
            part = seen.index_select(0, where)
            degrade_into(part, part, size=size, flips=turned, mode=self._mode)
            out.index_copy_(0, where, part)

    def _upload(self, values: np.ndarray) -> torch.Tensor:
        """A small array on the device; from pinned memory, so that nobody waits for the step that a GPU is at."""
        tensor = torch.from_numpy(values)
        return tensor.pin_memory().to(self._device, non_blocking=True) if self._device.type == "cuda" else tensor

    def _hold(self, decoded: Any) -> None:
        """On a GPU what reads DALI's buffer is only queued, behind the step before: DALI may have it back when that is done."""
        if self._device.type == "cuda":
            read = torch.cuda.Event()  # type: ignore[no-untyped-call]
            read.record(torch.cuda.current_stream(self._device))
            self._held = (decoded, read)

    def _release(self) -> None:
        if self._held is not None:
            self._held[1].synchronize()
            self._held = None

    def _feed(self) -> np.ndarray:
        """DALI asks for the JPEGs of one batch, ahead of ``__next__``."""
        draw = self._sampler.draw(self._drawn.epoch, self._drawn.step)
        encoded = self._reader.padded(draw.rows.ravel(), self._room)  # DALI takes a copy
        self._pending.append(draw)
        self._drawn = self._drawn.next(self._sampler.steps_per_epoch)
        return encoded


@pipeline_def
def decoder(source: Any, decode_on: str, hw_decoder_load: float = 0.9) -> Any:
    """The DALI graph: JPEGs decoded to RGB.

    Args:
        source: gives a batch when called, zero-padded (N, bytes) uint8 or a list of (bytes,) uint8.
        decode_on: ``cpu``, or ``mixed`` for nvJPEG.
        hw_decoder_load: the share of a batch that the GPU's JPEG hardware decodes, where it has any; DALI's own default.
    """
    encoded = fn.external_source(source=source, batch=True, dtype=types.UINT8, ndim=1)
    hints: dict[str, Any] = {}
    if decode_on == "mixed":
        hints = {"preallocate_width_hint": 128, "preallocate_height_hint": 128, "hw_decoder_load": hw_decoder_load}
    return fn.decoders.image(encoded, device=decode_on, output_type=types.RGB, jpeg_fancy_upsampling=True, **hints)


def _room_like(images: torch.Tensor) -> torch.Tensor:
    """As ``torch.empty_like``; on the CPU NumPy's, which asks for huge pages: thousands of page faults fewer a batch."""
    return torch.empty_like(images) if images.is_cuda else torch.from_numpy(np.empty(images.shape, np.uint8))


def _one_device(name: str) -> torch.device:
    """``cuda`` means torch's current GPU, for DALI and for the labels alike."""
    device = torch.device(name)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device
