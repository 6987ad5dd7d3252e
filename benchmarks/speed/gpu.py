"""Stage ``gpu``: everything that a GPU changes; without a GPU, the parts that a CPU can run."""

from __future__ import annotations

import dataclasses
import functools
import gc
import itertools
from collections.abc import Callable, Iterator
from typing import Any, get_args

import numpy as np
import torch
import torch.utils.dlpack

from benchmarks.speed.baselines import plain_update
from benchmarks.speed.faces import CROP_SIZE, Setup, build_excerpt
from benchmarks.speed.loader import read_batches, start_decoder
from benchmarks.speed.step import VIEWS, Batch, Update, our_update, random_batch, synchronize, update_on
from benchmarks.speed.timing import Contender, Facts, Run, Timing, against_first, compare_times, cores
from pipeline.load.degrade import Precision, degrade, resize_by_products
from pipeline.load.loader import Loader
from shards.index import ShardIndex

_DECODED, _QUICK_DECODED = (512, 20), (64, 2)  # images per batch, as the reference has; batches per call
_HW_LOADS = (0.0, 0.65, 0.9, 1.0)  # share of a batch for the hardware decoder of an A100 or H100
_DEGRADED = (8, 12, 16)  # px
_BACKBONES = ("spherenet20", "ir50")
_TRAINED = {"cuda": (128, 20), "cpu": (8, 2)}  # identities per batch; batches per call


def time_gpu(setup: Setup, *, device: str) -> Iterator[Timing]:
    """Times decoding and degradation; then, for each network, the loader alone, the step alone, and both."""
    index = build_excerpt(setup, setup.scratch / "gpu", cores())
    yield time_decoding(setup, index, device)
    yield from time_degradation(setup, device)
    for backbone in ("spherenet4",) if setup.quick else _BACKBONES:
        yield _time_training(setup, index, backbone, device)


def time_decoding(setup: Setup, index: ShardIndex, device: str) -> Timing:
    """JPEGs to RGB on the device: on the CPU and with nvJPEG, from a zero-padded array and from a list."""
    images, batches = _QUICK_DECODED if setup.quick else _DECODED
    (padded,) = read_batches(index, images, 1)
    listed = [row[: np.flatnonzero(row)[-1] + 1] for row in padded]
    decoders: list[tuple[Any, ...]] = [("CPU decodes, padded feed", padded), ("CPU decodes, list feed", listed)]
    if device == "cuda":
        decoders += [(f"nvJPEG, hw_decoder_load {load}", padded, "mixed", load) for load in _HW_LOADS]
        decoders += [("nvJPEG, list feed", listed, "mixed")]
    runs: dict[str, Run] = {}
    for name, jpegs, *how in decoders:
        pipe = start_decoder([jpegs], images, 0 if device == "cuda" else None, *how)  # slow for nvJPEG
        runs[name] = functools.partial(_decode, pipe, batches, device)
    size = f"{index.size.mean():,.0f}"
    facts = {"threads": str(cores()), "images to draw from": f"{len(index):,}", "bytes of a JPEG": size}
    title = f"decode to the {device}, {images} images"
    contenders = against_first(runs, images * batches)
    return compare_times("gpu", title, contenders, rounds=setup.rounds, facts=facts)


def _decode(pipe: Any, batches: int, device: str) -> None:
    for _ in range(batches):
        (decoded,) = pipe.run()
        torch.utils.dlpack.from_dlpack(decoded.as_tensor()).to(device)
    synchronize(device)


def time_degradation(setup: Setup, device: str) -> Iterator[Timing]:
    """Exact degradation by matrix products at several precisions; the names count the pixels that differ from Pillow's."""
    count = 16 if setup.quick else 128
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, CROP_SIZE, CROP_SIZE, 3), dtype=torch.uint8, generator=generator)
    for size in _DEGRADED[:1] if setup.quick else _DEGRADED:
        expected = degrade(pixels, size, "exact")
        contenders = [Contender("Pillow, CPU", "baseline", functools.partial(degrade, pixels, size), count)]
        for precision in get_args(Precision):
            run = functools.partial(_degrade_by_products, pixels.to(device), size, precision)
            differing = int((run().cpu() != expected).sum())
            name = f"products, {precision}: {differing:,} of {expected.numel():,} differ"
            contenders.append(Contender(name, "ours", run, count, "other pixels" if differing else ""))
        title = f"degrade to {size} px and back on the {device}, {count} images"
        yield compare_times("gpu", title, contenders, rounds=setup.rounds, facts={})


def _degrade_by_products(images: torch.Tensor, size: int, precision: Precision) -> torch.Tensor:
    out = resize_by_products(resize_by_products(images, size, precision), images.shape[1], precision)
    synchronize(images.device.type)
    return out


def _time_training(setup: Setup, index: ShardIndex, backbone: str, device: str) -> Timing:
    """Measures memory first, with one network at a time; for the timing all networks are kept."""
    identities, batches = _TRAINED[device]
    batch = min(2 if setup.quick else identities, len(index.labels))

    def update(kind: str) -> Update:
        return our_update(backbone, batch, device, kind) if kind else plain_update(backbone, device)

    runs = functools.partial(training_runs, index, batch=batch, batches=batches, device=device)
    facts = peak_memory(runs(update)) if device == "cuda" else {}
    contenders = against_first(dict(runs(functools.cache(update))), VIEWS * batch * batches)
    contenders[-1] = dataclasses.replace(contenders[-1], gives="images")  # the loader alone: no step to compare
    title = f"training on the {device}, {backbone}, {batch} identities"
    return compare_times("gpu", title, contenders, rounds=setup.rounds, facts=facts)


def training_runs(
    index: ShardIndex, update: Callable[[str], Update], *, batch: int, batches: int, device: str
) -> Iterator[tuple[str, Run]]:
    """Yields the contenders by name, the baseline first; each is built when it is requested.

    ``update`` returns the update for a name of ``our_update``, or the baseline's for "".
    """

    def run(step: Update, inputs: Iterator[Batch]) -> Run:
        return functools.partial(update_on, step, inputs, batches, device)

    yield "plain step, fp32", run(update(""), itertools.repeat(random_batch(batch, device)))
    for kind in ("fp32", "bf16", *(["bf16, compiled"] if device == "cuda" else [])):
        yield f"step alone, {kind}", run(update(kind), itertools.repeat(random_batch(batch, device)))
        yield f"loader and step, {kind}", run(update(kind), _load(index, batch, device))
    yield "loader alone", run(lambda images, labels: None, _load(index, batch, device))


def _load(index: ShardIndex, batch: int, device: str) -> Iterator[Batch]:
    """Yields batches of a loader, which starts at the first batch and stops when the iterator is deleted."""
    with Loader(index, batch_size=batch, device=device, threads=cores()) as loader:
        for loaded in loader:
            yield loaded.images, loaded.labels


def peak_memory(runs: Iterator[tuple[str, Run]]) -> Facts:
    """Peak of the GPU memory that PyTorch (not DALI) allocates to build and run each contender, as facts."""
    facts: Facts = {}
    while True:
        gc.collect()  # the previous contender
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        name, run = next(runs, ("", None))
        if run is None:
            return facts
        run()
        del run
        facts[f"PyTorch's peak memory, {name}"] = f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
