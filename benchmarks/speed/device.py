"""``bench speed gpu``: decoding and degradation in the ways that a GPU offers; without one, those that the CPU has."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.utils.dlpack

from benchmarks.speed.faces import build_excerpt, data_root
from benchmarks.speed.timing import Contender, Timing, compare_times
from pipeline.load.degrade import Precision, degrade, resize_by_products
from pipeline.load.loader import Batch, Loader, decoder
from shards.index import ShardIndex, ShardReader

_BATCH, _SIZE = 512, 128  # images of a batch, as the reference has it; px
_HW_LOADS = (0.0, 0.65, 0.9, 1.0)  # shares of a batch for the hardware decoder of an A100 or H100
_DEGRADED = (8, 12, 16)  # px


def time_decoding(
    *, root: Path | None, folder: Path, rounds: int, quick: bool, device: str, threads: int
) -> Iterator[Timing]:
    """JPEGs to RGB on the device: nvJPEG at several loads of its hardware decoder, padded feed and list, CPU and upload."""
    index = build_excerpt(data_root(root, folder, quick=quick), folder / "device", threads, quick=quick)
    batch, batches = (64, 2) if quick else (_BATCH, 20)
    rng = np.random.default_rng(0)
    with ShardReader(index) as reader:
        padded = reader.padded(rng.integers(0, len(index), batch))
    listed = [row[: np.flatnonzero(row)[-1] + 1] for row in padded]
    how = functools.partial(_decoding, batch=batch, batches=batches, device=device, threads=threads)
    amount = batch * batches
    ways: dict[str, Callable[[], None]] = {
        "CPU decodes, padded feed": how(padded, "cpu"),
        "CPU decodes, list feed": how(listed, "cpu"),
    }
    if device == "cuda":
        for load in _HW_LOADS:
            ways[f"nvJPEG, hw_decoder_load {load}"] = how(padded, "mixed", hw_decoder_load=load)
        ways["nvJPEG, list feed"] = how(listed, "mixed")
    yield compare_times(
        "gpu",
        f"decode to the {device}, {batch} images",
        [
            Contender(name=name, role="ours" if place else "baseline", run=run, amount=amount)
            for place, (name, run) in enumerate(ways.items())
        ],
        unit="images",
        rounds=rounds,
        facts={
            "threads": str(threads),
            "images to draw from": f"{len(index):,}",
            "bytes of a JPEG": f"{index.size.mean():,.0f}",
        },
    )


def _decoding(
    jpegs: Any, decode_on: str, *, batch: int, batches: int, device: str, threads: int, **settings: Any
) -> Callable[[], None]:
    pipe = decoder(
        source=lambda: jpegs,
        decode_on=decode_on,
        batch_size=batch,
        num_threads=threads,
        device_id=0 if device == "cuda" else None,
        prefetch_queue_depth=2,
        **settings,
    )
    pipe.build()  # once: nvJPEG takes longer to start than a call

    def decode() -> None:
        for _ in range(batches):
            (decoded,) = pipe.run()
            torch.utils.dlpack.from_dlpack(decoded.as_tensor()).to(device)
        wait(device)

    return decode


def time_degradation(*, rounds: int, quick: bool, device: str) -> Iterator[Timing]:
    """Exact degradation by matrix products at several precisions; each name says how many pixels differ from Pillow's."""
    count = 16 if quick else 128
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, _SIZE, _SIZE, 3), dtype=torch.uint8, generator=generator)
    for size in _DEGRADED[:1] if quick else _DEGRADED:
        pillow = degrade(pixels, size, "exact")
        images = pixels.to(device)
        contenders = [
            Contender(name="Pillow, CPU", role="baseline", run=functools.partial(degrade, pixels, size), amount=count)
        ]
        precisions: tuple[Precision, ...] = ("highest", "high", "medium")
        for precision in precisions:
            run = functools.partial(_products, images, size, precision)
            differing = int((run().cpu() != pillow).sum())
            name = f"products, {precision}: {differing:,} of {pillow.numel():,} differ"
            gives = "other pixels" if differing else ""
            contenders.append(Contender(name=name, role="ours", run=run, amount=count, gives=gives))
        title = f"degrade to {size} px and back on the {device}, {count} images"
        yield compare_times("gpu", title, contenders, unit="images", rounds=rounds, facts={})


def _products(images: torch.Tensor, size: int, precision: Precision) -> torch.Tensor:
    out = resize_by_products(resize_by_products(images, size, precision), images.shape[1], precision)
    wait(images.device.type)
    return out


def loader_batches(index: ShardIndex, *, batch: int, batches: int, device: str, threads: int) -> Callable[[], None]:
    """Takes batches from the loader, and does nothing with them."""
    given = endless_batches(index, batch=batch, device=device, threads=threads)

    def take() -> None:
        for _ in range(batches):
            next(given)
        wait(device)

    return take


def endless_batches(index: ShardIndex, *, batch: int, device: str, threads: int) -> Iterator[Batch]:
    """Batches of one loader, which starts with the first and is there until nothing holds them any more."""
    with Loader(index, batch_size=batch, device=device, threads=threads) as loader:
        yield from loader


class Memory(Protocol):
    """Counts what is allocated."""

    def restart(self) -> None:
        """Frees what nothing holds, and counts from here on."""

    def peak(self) -> int:
        """The most bytes since."""


class GpuMemory:
    """Memory of a GPU that PyTorch allocates; DALI's is its own."""

    def restart(self) -> None:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    def peak(self) -> int:
        return torch.cuda.max_memory_allocated()


def peak_memory(ways: Mapping[str, Callable[[], Callable[[], None]]], memory: Memory) -> dict[str, str]:
    """The peak of each way to do something, as facts: what it needs is built, run and let go before the next.

    Args:
        ways: name -> builds what the way needs, and returns what runs it.
    """
    facts = {}
    for name, build in ways.items():
        gc.collect()
        memory.restart()
        build()()
        facts[f"PyTorch's peak memory, {name}"] = f"{memory.peak() / 2**30:.1f} GiB"
    return facts


def wait(device: str) -> None:
    """Returns when the device is done."""
    if device == "cuda":
        torch.cuda.synchronize()
