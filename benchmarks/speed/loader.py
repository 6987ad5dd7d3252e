"""``bench speed loader``: training batches from crops, against a DataLoader over files and against DALI's bare decoding."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.speed.faces import build_excerpt, data_root
from benchmarks.speed.plain import plain_batches
from benchmarks.speed.timing import Contender, Timing, compare_times
from pipeline.load.degrade import Mode
from pipeline.load.loader import Loader, decoder
from pipeline.load.sampler import IdentitySampler, LoaderState
from shards.index import ShardIndex, ShardReader

_SIZES = (128, 8, 12, 16)  # px, of the images of an identity
_BATCH, _BATCHES, _PLAIN_BATCHES = 128, 200, 60  # identities in a batch; batches of a call, of seconds each
_BYTES, _NORMALISED = "uint8", "normalised float32"  # what a batch may be of
_KEPT = 8  # batches whose JPEGs the bare decoder is given, again and again


def time_loader(
    *, root: Path | None, folder: Path, rounds: int, quick: bool, normalise: Callable[[torch.Tensor], torch.Tensor]
) -> Iterator[Timing]:
    """Batches of 128 identities, each at 128, 8, 12 and 16 px; uint8, or normalised float32 as a network takes them.

    Args:
        root: data sets to take faces from; None: generated ones.  folder: for everything that is written.
        normalise: (N, S, S, 3) uint8 -> (N, 3, S, S) float32, as training does it.
    """
    threads = len(os.sched_getaffinity(0))
    index = build_excerpt(data_root(root, folder, quick=quick), folder / "loader", threads, quick=quick)
    identities = write_files(index, folder / "crops")
    batch = min(_BATCH, len(identities))
    batches, few = (4, 2) if quick else (_BATCHES, _PLAIN_BATCHES)
    facts = {
        "images to draw from": f"{len(index):,}",
        "identities in a batch": str(batch),
        "images an identity": str(len(_SIZES)),
        "bytes of a JPEG": f"{index.size.mean():,.0f}",
        "threads or workers": str(threads),
        "compared": "uint8 with uint8, normalised with normalised",
    }
    contenders = [
        *_plain(identities, batch, few, threads),
        *_ours(index, batch, batches, threads, normalise),
        Contender(
            name="DALI decodes, from memory, nothing else",
            role="floor",
            run=bare_decoding(index, batch, batches, threads),
            amount=batch * batches,
            gives=_BYTES,
        ),
    ]
    title = f"loader, {batch} identities x {_SIZES} px"
    yield compare_times("loader", title, contenders, unit="identities", rounds=rounds, facts=facts)


def _plain(identities: Sequence[Sequence[Path]], batch: int, batches: int, workers: int) -> Iterator[Contender]:
    for normalised, name in ((True, "DataLoader, Pillow, a file an image, normalised"), (False, "the same, uint8")):
        yield Contender(
            name=name,
            role="baseline",
            run=functools.partial(plain_batches_of, identities, batch, batches, workers, normalised=normalised),
            amount=batch * batches,
            gives=_NORMALISED if normalised else _BYTES,
        )


def _ours(
    index: ShardIndex, batch: int, batches: int, threads: int, normalise: Callable[[torch.Tensor], torch.Tensor]
) -> Iterator[Contender]:
    def run(mode: Mode, then: Callable[[torch.Tensor], object]) -> None:
        views = [(size, size) for size in _SIZES]
        with Loader(index, batch_size=batch, views=views, mode=mode, threads=threads) as loader:
            for _ in range(batches):
                then(next(loader).images.flatten(0, 1))

    ways: tuple[tuple[str, Mode, Callable[[torch.Tensor], object], str], ...] = (
        ("Loader, fast degradation, normalised", "fast", normalise, _NORMALISED),
        ("Loader, fast degradation, uint8", "fast", id, _BYTES),
        ("Loader, exact degradation, uint8", "exact", id, _BYTES),
    )
    for name, mode, then, gives in ways:
        timed = functools.partial(run, mode, then)
        yield Contender(name=name, role="ours", run=timed, amount=batch * batches, gives=gives)


def write_files(index: ShardIndex, folder: Path) -> list[list[Path]]:
    """Writes each crop to a file of its own; returns the files of each identity."""
    identities = []
    with ShardReader(index) as reader:
        for label, first, count in zip(index.labels.tolist(), index.first.tolist(), index.count.tolist(), strict=True):
            (folder / str(label)).mkdir(parents=True)
            paths = [folder / str(label) / f"{row}.jpg" for row in range(first, first + count)]
            for row, path in enumerate(paths, first):
                path.write_bytes(reader.image(row).rstrip(b"\0"))
            identities.append(paths)
    return identities


class PlainFaces(Dataset):
    """An image for each size of an identity, drawn, flipped and degraded as an ordinary PyTorch user does it.

    (V, 3, S, S) float32 in -1..1 if ``normalised``, else (V, S, S, 3) uint8, RGB.
    """

    def __init__(self, identities: Sequence[Sequence[Path]], *, normalised: bool) -> None:
        self._identities, self._normalised = identities, normalised

    def __len__(self) -> int:
        return len(self._identities)

    def __getitem__(self, identity: int) -> tuple[torch.Tensor, int]:
        paths = self._identities[identity]
        return torch.stack([self._image(paths[int(torch.randint(len(paths), ()))], size) for size in _SIZES]), identity

    def _image(self, path: Path, size: int) -> torch.Tensor:
        image: Image.Image = Image.open(path).convert("RGB")
        if torch.rand(()) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if size != image.width:
            small = image.resize((size, size), Image.Resampling.BICUBIC)
            image = small.resize(image.size, Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(image))
        return (pixels.permute(2, 0, 1).float() / 255 - 0.5) / 0.5 if self._normalised else pixels


def plain_batches_of(
    identities: Sequence[Sequence[Path]], batch: int, batches: int, workers: int, *, normalised: bool
) -> None:
    """Takes some batches, from as many epochs as that needs."""
    faces = PlainFaces(identities, normalised=normalised)
    sampler = torch.utils.data.RandomSampler(identities, replacement=True, num_samples=batch * batches)
    loader = DataLoader(faces, batch, sampler=sampler, num_workers=workers, multiprocessing_context="fork")
    with plain_batches(loader) as taken:
        for _ in taken:
            pass


def bare_decoding(index: ShardIndex, batch: int, batches: int, threads: int) -> Callable[[], None]:
    """What DALI alone takes for the loader's own images, their bytes in memory."""
    state = LoaderState(seed=0, global_batch=batch, views=len(_SIZES), index_digest=index.manifest.index_digest)
    sampler = IdentitySampler(index.first, index.count, state)
    with ShardReader(index) as reader:
        kept = [
            reader.padded(sampler.draw(*divmod(number, sampler.steps_per_epoch)).rows.ravel())
            for number in range(_KEPT)
        ]

    def decode() -> None:
        number = iter(range(1 << 30))
        pipe = decoder(
            source=lambda: kept[next(number) % _KEPT],
            decode_on="cpu",
            batch_size=batch * len(_SIZES),
            num_threads=threads,
            device_id=None,
            prefetch_queue_depth=2,
        )
        pipe.build()
        for _ in range(batches):
            pipe.run()

    return decode
