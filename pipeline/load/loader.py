"""The data loader: an endless, resumable stream of training batches."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
import torch
import torch.utils.dlpack

from pipeline.degradation.parameters import parameters
from pipeline.degradation.presets import Preset
from pipeline.degradation.realistic import degrade_as
from pipeline.load.ahead import ReadAhead, check_images
from pipeline.load.decoder import PREFETCH_BATCHES, checked_device, decoder
from pipeline.load.degrade import Mode, degrade_into
from pipeline.load.sampler import Draw, LoaderState
from pipeline.load.sequential import sampler_of
from pipeline.load.views import ViewSpec, checked_views
from pipeline.spec import spec_of
from shards.arguments import check_argument, check_whole, check_word
from shards.index import EXPECTED_INDEX, ShardIndex, ShardReader

_DEGRADED = 0  # in place of a size


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
    """Endless iterator over batches, and a context manager that starts and stops DALI."""

    def __init__(
        self,
        index: ShardIndex,
        *,
        batch_size: int,
        views: Sequence[ViewSpec] = ((128, 128), (8, 8), (12, 12), (16, 16)),
        seed: int = 0,
        mode: Mode = "fast",
        device: str = "cpu",
        threads: int = 2,
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
            threads: CPU threads of DALI.
            resume: ``state.to_dict()`` of the last consumed batch, of a run with any number of ranks.
            originals: batches have the images before their degradation, too.
            window: draw from so many shards at a time, for sets that are read from front to back, see
                ``SequentialSampler``. None draws from the whole set.

        Raises:
            SamplerError: the batch size does not fit the data or the ranks, or ``resume`` belongs to another stream.
            PresetError: there is no such preset, or its file cannot be used.
            TypeError, ValueError: an argument of a wrong type or value.
        """
        check_argument(isinstance(index, ShardIndex), "index", index, EXPECTED_INDEX)
        expected = "the dict that batch.state.to_dict() returns"
        check_argument(isinstance(resume, Mapping | None), "resume", resume, expected)
        check_word("mode", mode, get_args(Mode))
        for name, value, least in (("batch_size", batch_size, 1), ("seed", seed, 0), ("threads", threads, 1)):
            check_whole(name, value, least)
        check_whole("rank", rank, 0, check_whole("world_size", world_size, 1) - 1)
        if window is not None:
            check_whole("window", window, 1)
        self._index, self._mode = index, mode
        self._views, self._degradations = checked_views(views)
        self._presets = [None if one is None else one.preset for one in self._degradations]
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
        self._pipe: Any = None
        self._in_use: tuple[Any, torch.cuda.Event] | None = None
        self._originals = originals

    def __enter__(self) -> Loader:
        self._pending.clear()  # batches that an earlier use decoded ahead are decoded again
        share = self._consumed.global_batch // self._sampler.world_size
        self._shape = (len(self._views), share, self._size, self._size, 3)
        self._pipe = decoder(
            source=self._feed,
            decode_on="mixed" if self._device.type == "cuda" else "cpu",
            batch_size=share * len(self._views),
            num_threads=self._threads,
            device_id=self._device.index,
            prefetch_queue_depth=PREFETCH_BATCHES,
        )
        self._pipe.build()
        ahead = ReadAhead(self._index, ShardReader(self._index), self._sampler, self._consumed)
        self._ahead = ahead.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._release()
        self._pipe = None  # stops its threads
        self._ahead.__exit__()

    @property
    def state(self) -> LoaderState:
        """Position in the stream after the last batch."""
        return self._consumed

    def __repr__(self) -> str:
        views = tuple(
            (*pair, one.label) if one else pair for pair, one in zip(self._views, self._degradations, strict=True)
        )
        at = f"epoch {self._consumed.epoch}, step {self._consumed.step}{'' if self._pipe else ', closed'}"
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
            RuntimeError: outside the ``with`` block.
        """
        if self._pipe is None:
            raise RuntimeError(
                "the loader is closed: use it in a with block, which starts and stops DALI:"
                " with Loader(index, batch_size=128) as batches: ..."
            )
        self._release()
        try:
            (decoded,) = self._pipe.run()
            crops = torch.utils.dlpack.from_dlpack(decoded.as_tensor()).reshape(self._shape)
        except BaseException as error:
            self.__exit__()  # after an interruption, images and labels might no longer match
            if isinstance(error, RuntimeError):
                with ShardReader(self._index) as reader:
                    for draw in self._pending:
                        check_images(self._index, reader, draw.rows.ravel())
            raise
        draw = self._pending.popleft()
        mirrored = self._upload(draw.flips)[..., None, None, None] if self._originals else None
        originals = None if mirrored is None else torch.where(mirrored, crops.flip(3), crops)
        images = _empty_like(crops)  # DALI reuses the buffer of the crops
        sizes = self._sizes(draw.size_draws)
        for view, view_sizes in enumerate(sizes):
            self._degrade(view, images[view], crops[view], view_sizes, draw.flips[view])
        self._keep_until_read(decoded)
        self._consumed = self._sampler.after(self._consumed)
        labels = self._upload(self._index.labels[draw.classes].astype(np.int64))
        return Batch(
            images=images, labels=labels, sizes=sizes, rows=draw.rows, state=self._consumed, originals=originals
        )

    def _sizes(self, size_draws: np.ndarray) -> np.ndarray:
        """(V, b) int64 sizes of the images of one batch, px, from uniform (V, b) ``size_draws`` below 2**31."""
        low, high = np.array(self._views, np.uint64).T[..., None]
        return np.minimum(low + (size_draws * (high - low + np.uint64(1)) >> np.uint64(31)), self._size).astype(
            np.int64
        )

    def _degrade(self, view: int, out: torch.Tensor, crops: torch.Tensor, sizes: np.ndarray, flips: np.ndarray) -> None:
        """Degrades and flips the (b, S, S, 3) ``crops`` of one view into ``out``, those of each size together.

        With a preset, all that are degraded are processed together.
        """
        preset = self._presets[view]
        if preset is not None:
            low, high = self._views[view]
            possible = range(min(low, self._size - 1), min(high, self._size - 1) + 1)
            values = self._values(view, preset, np.minimum(sizes, self._size - 1), flips)
            degrade_as(out, crops, preset, values, sizes=possible)
            sizes = np.where(sizes < self._size, _DEGRADED, sizes)
        for size in np.unique(sizes[sizes != _DEGRADED]).tolist():
            indices = np.flatnonzero(sizes == size)
            group_flips = self._upload(flips[indices])
            if len(indices) == len(sizes):
                degrade_into(out, crops, size=size, flips=group_flips, mode=self._mode)
                continue
            where = self._upload(indices)
            group = crops.index_select(0, where)
            degrade_into(group, group, size=size, flips=group_flips, mode=self._mode)
            out.index_copy_(0, where, group)

    def _values(self, view: int, preset: Preset, sizes: np.ndarray, flips: np.ndarray) -> dict[str, torch.Tensor]:
        """What the images of a view draw from its preset, in the batch that is being made."""
        numbers = self._sampler.degradation(self._consumed.epoch, self._consumed.step, view)
        drawn = parameters(preset, numbers, sizes, flips)
        return dict(zip(drawn, self._upload(np.stack(list(drawn.values()))).unbind(), strict=True))

    def _upload(self, values: np.ndarray) -> torch.Tensor:
        """Copies a small array to the device; from pinned memory, so that the copy does not wait for the GPU."""
        tensor = torch.from_numpy(values)
        return tensor.pin_memory().to(self._device, non_blocking=True) if self._device.type == "cuda" else tensor

    def _keep_until_read(self, decoded: Any) -> None:
        """Keeps DALI's output alive on a GPU, where the kernels that read it are queued and may not have run yet."""
        if self._device.type == "cuda":
            read = torch.cuda.Event()  # type: ignore[no-untyped-call]
            read.record(torch.cuda.current_stream(self._device))
            self._in_use = (decoded, read)

    def _release(self) -> None:
        """Returns the output of the last batch to DALI once it has been read."""
        if self._in_use is not None:
            self._in_use[1].synchronize()
            self._in_use = None

    def _feed(self) -> np.ndarray:
        """The JPEGs of the next batch, (V * b, bytes) uint8, padded with zeros. DALI calls this ahead of ``__next__``."""
        batch = self._ahead.next()
        self._pending.append(batch.draw)
        return batch.jpegs  # DALI copies them


def _empty_like(images: torch.Tensor) -> torch.Tensor:
    """``torch.empty_like``. On the CPU NumPy allocates: it uses huge pages, which saves thousands of page faults."""
    return torch.empty_like(images) if images.is_cuda else torch.from_numpy(np.empty(images.shape, np.uint8))
