"""Stage ``loader``: training batches from crops, against a DataLoader over files and against bare DALI decoding."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.speed.baselines import load_views, map_batches
from benchmarks.speed.faces import Setup, build_excerpt
from benchmarks.speed.timing import Contender, Timing, compare_times, cores
from model.inputs import normalise
from pipeline.load.decoder import decoder
from pipeline.load.degrade import Mode
from pipeline.load.loader import Loader
from shards.index import ShardIndex, ShardReader

SIZES = (128, 8, 12, 16)  # px, of the views of an identity
_BATCH = 128  # identities
_BATCHES, _QUICK_BATCHES = (200, 60), (4, 2)  # of a call of ours, of the baseline
_UINT8, _NORMALISED = "uint8", "normalised float32"


def time_loader(setup: Setup) -> Iterator[Timing]:
    """Times batches of 128 identities at four sizes: as uint8, and as the normalised float32 that a network takes."""
    index = build_excerpt(setup, setup.scratch / "loader", cores())
    files = write_files(index, setup.scratch / "crops")
    batch = min(_BATCH, len(files))
    batches, plain_batches = _QUICK_BATCHES if setup.quick else _BATCHES
    amount, plain_amount = batch * batches, batch * plain_batches

    def plain(normalised: bool) -> None:
        load = functools.partial(load_views, SIZES, normalised)
        for _ in map_batches(load, files, batch, cores(), draws=plain_amount):
            pass

    def ours(mode: Mode, then: Callable[[torch.Tensor], object] = id, preset: Sequence[str] = ()) -> None:
        views: list[Any] = [(size, size, *(preset if size < max(SIZES) else ())) for size in SIZES]
        with Loader(index, batch_size=batch, views=views, mode=mode, threads=cores()) as loader:
            for _ in range(batches):
                then(next(loader).images.flatten(0, 1))

    images = batch * len(SIZES)
    decode = functools.partial(_decode, read_batches(index, images, 8), images, batches)
    surveillance = functools.partial(ours, "fast", preset=["surveillance"])
    slow, fast = "DataLoader, Pillow, a file an image, normalised", "Loader, fast degradation, normalised"
    contenders = [
        Contender(slow, "baseline", lambda: plain(normalised=True), plain_amount, _NORMALISED),
        Contender("the same, uint8", "baseline", lambda: plain(normalised=False), plain_amount, _UINT8),
        Contender(fast, "ours", lambda: ours("fast", normalise), amount, _NORMALISED),
        Contender("Loader, fast degradation, uint8", "ours", lambda: ours("fast"), amount, _UINT8),
        Contender("Loader, exact degradation, uint8", "ours", lambda: ours("exact"), amount, _UINT8),
        Contender("Loader, preset surveillance, uint8", "ours", surveillance, amount, _UINT8),
        Contender("DALI decodes, from memory, nothing else", "floor", decode, amount, _UINT8),
    ]
    facts = {
        "images to draw from": f"{len(index):,}",
        "identities in a batch": str(batch),
        "images an identity": str(len(SIZES)),
        "bytes of a JPEG": f"{index.size.mean():,.0f}",
        "threads or workers": str(cores()),
        "compared": "uint8 with uint8, normalised with normalised",
    }
    title = f"loader, {batch} identities x {SIZES} px"
    yield compare_times("loader", title, contenders, unit="identities", rounds=setup.rounds, facts=facts)


def write_files(index: ShardIndex, folder: Path) -> list[list[Path]]:
    """Writes each crop to a file; returns the files of each identity."""
    files: dict[int, list[Path]] = {label: [] for label in index.labels.tolist()}
    with ShardReader(index) as reader:
        for row, label in enumerate(index.label.tolist()):
            path = folder / str(label) / f"{row}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(reader.image(row).rstrip(b"\0"))
            files[label].append(path)
    return list(files.values())


def _decode(jpegs: Sequence[np.ndarray], images: int, batches: int) -> None:
    pipe = start_decoder(jpegs, images)
    for _ in range(batches):
        pipe.run()


def read_batches(index: ShardIndex, images: int, batches: int) -> list[np.ndarray]:
    """Batches of random JPEGs: (images, bytes) uint8, padded with zeros."""
    rng = np.random.default_rng(0)
    with ShardReader(index) as reader:
        return [reader.padded(rng.integers(0, len(index), images)) for _ in range(batches)]


def start_decoder(batches: Sequence[Any], images: int, gpu: int | None = None, *how: Any) -> Any:
    """Starts a DALI pipeline that decodes ``batches`` repeatedly; ``how``: arguments of the loader's ``decoder``."""
    jpegs = itertools.cycle(batches)
    settings = {"batch_size": images, "num_threads": cores(), "device_id": gpu, "prefetch_queue_depth": 2}
    pipe = decoder(lambda: next(jpegs), *(how or ["cpu"]), **settings)
    pipe.build()
    return pipe
