"""Stage ``gpu``: everything that a GPU changes; without a GPU, the parts that a CPU can run."""

from __future__ import annotations

import dataclasses
import functools
import gc
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.utils.dlpack

from benchmarks.speed.baselines import plain_update
from benchmarks.speed.faces import CROP_SIZE, Setup, build_excerpt
from benchmarks.speed.loader import read_batches, start_decoder
from benchmarks.speed.step import (
    VIEWS,
    Batch,
    Update,
    count_flops,
    in_precision,
    our_update,
    peak_share,
    random_batch,
    synchronize,
    update_on,
)
from benchmarks.speed.timing import Contender, Facts, Run, Timing, against_first, compare_times, cores
from pipeline.load.degrade import degrade, resize_by_products
from pipeline.load.loader import Loader
from pipeline.load.views import ViewSpec
from shards.index import ShardIndex
from shards.process_setting import ProcessSetting

_DECODED, _QUICK_DECODED = (512, 20), (64, 2)  # images per batch, as the reference has; batches per call
_HW_LOADS = (0.0, 0.35, 0.65, 0.9, 1.0)  # share of a batch for the hardware decoder of an A100 or H100
_DEGRADED = (8, 12, 16)  # px
_BACKBONES = ("spherenet20", "ir50")
_TRAINED = {"cuda": 128, "cpu": 8}  # identities per batch
_BATCHES = {"cuda": 20, "cpu": 2}  # per call
_LOADER_BATCHES = {"cuda": 60, "cpu": 2}  # of the loader alone; those that it has ready must not count
_SLOW_BATCHES = 4  # of updates in fp32 and TF32 on a GPU
PLAIN = "plain step, "  # before the precision of the baseline
KINDS = {"cuda": ("fp32", "TF32", "bf16", "bf16, compiled"), "cpu": ("fp32", "bf16")}  # of our update
_LOADED: dict[str, tuple[ViewSpec, ...]] = {
    "(128, 8, 12, 16) px, as Pillow": (),
    "128, 8-32 px": ((128, 128), (8, 32), (8, 32), (8, 32)),
    "128, 8-32 px as surveillance": ((128, 128), *[(8, 32, "surveillance")] * 3),
}


def time_gpu(setup: Setup, *, device: str) -> Iterator[Timing]:
    """Times decoding, degradation and the loader; then, for each network, the step alone, and with the loader."""
    index = build_excerpt(setup, setup.scratch / "gpu", cores())
    yield time_decoding(setup, index, device)
    yield from time_degradation(setup, device)
    yield time_loaders(setup, index, device, threads=(cores(),))
    for backbone in ("spherenet4",) if setup.quick else _BACKBONES:
        yield time_training(setup, index, backbone, device, KINDS[device])


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
        for precision in ("highest", "high", "medium"):
            run = functools.partial(_degrade_by_products, pixels.to(device), size, precision)
            differing = int((run().cpu() != expected).sum())
            name = f"products, {precision}: {differing:,} of {expected.numel():,} differ"
            contenders.append(Contender(name, "ours", run, count, "other pixels" if differing else ""))
        title = f"degrade to {size} px and back on the {device}, {count} images"
        yield compare_times("gpu", title, contenders, rounds=setup.rounds, facts={})


def _degrade_by_products(images: torch.Tensor, size: int, precision: str) -> torch.Tensor:
    change = functools.partial(torch.set_float32_matmul_precision, precision)
    with ProcessSetting(torch.get_float32_matmul_precision, change, torch.set_float32_matmul_precision):
        out = resize_by_products(resize_by_products(images, size), images.shape[1])
    synchronize(images.device.type)
    return out


def time_loaders(setup: Setup, index: ShardIndex, device: str, *, threads: Sequence[int]) -> Timing:
    """The loader alone, with several numbers of DALI's threads; and with views of other kinds, with the most threads."""
    batch, batches = batch_of(setup, index, device), _LOADER_BATCHES[device]

    def drop(images: torch.Tensor, labels: torch.Tensor) -> None:
        """Takes no step."""

    runs: dict[str, Run] = {}
    for count in threads:
        loaded = load(index, batch, device, threads=count)
        runs[f"{count} threads"] = functools.partial(update_on, drop, loaded, batches, device)
    for name, views in list(_LOADED.items())[1:]:
        loaded = load(index, batch, device, views=views)
        runs[f"{cores()} threads, {name}"] = functools.partial(update_on, drop, loaded, batches, device)
    facts = {"JPEGs": f"{index.size.mean():,.0f} bytes", "views without a name": next(iter(_LOADED))}
    contenders = against_first(runs, VIEWS * batch * batches)
    title = f"loader alone to the {device}, {batch} identities"
    return compare_times("gpu", title, contenders, rounds=setup.rounds, facts=facts)


def time_training(
    setup: Setup, index: ShardIndex, backbone: str, device: str, kinds: Sequence[str], *, loaded: bool = True
) -> Timing:
    """Times our update in each of ``kinds``, alone and, if ``loaded``, with the loader, against the plain one.

    Measures memory first, with one network at a time; for the timing all networks are kept.
    """
    batch = batch_of(setup, index, device)

    def update(kind: str) -> Update:
        if kind.startswith(PLAIN):
            return in_precision(plain_update(backbone, device), tf32=kind.endswith("TF32"))
        return our_update(backbone, batch, device, kind)

    runs = functools.partial(training_runs, index, kinds=kinds, batch=batch, device=device, loaded=loaded)
    facts = peak_memory(runs(update)) if device == "cuda" else {}
    updates = functools.cache(update)
    contenders = [
        Contender(name, "baseline" if name.startswith(PLAIN) else "ours", run, VIEWS * batch * batches)
        for name, run, batches in runs(updates)
    ]
    title = f"training on the {device}, {backbone}, {batch} identities"
    timing = compare_times("gpu", title, contenders, rounds=setup.rounds, facts=facts)
    flops = count_flops(updates(kinds[-1].removesuffix(", compiled")), random_batch(batch, device))
    card = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    facts |= {"device": card, "TFLOP a step": f"{flops / 1e12:.3f}"}
    return dataclasses.replace(timing, facts=facts | peak_share(timing, card, flops / (VIEWS * batch)))


def batch_of(setup: Setup, index: ShardIndex, device: str) -> int:
    """Identities in a batch: as the reference has on a GPU, few on a CPU."""
    return min(2 if setup.quick else _TRAINED[device], len(index.labels))


def training_runs(
    index: ShardIndex,
    update: Callable[[str], Update],
    *,
    kinds: Sequence[str],
    batch: int,
    device: str,
    loaded: bool = True,
) -> Iterator[tuple[str, Run, int]]:
    """Yields name, run and number of batches of each contender, the plain ones first; each is built when requested.

    ``update`` returns the update for a kind, or for one of the plain ones.
    """

    def made(name: str, kind: str, inputs: Iterator[Batch]) -> tuple[str, Run, int]:
        batches = _SLOW_BATCHES if is_slow(kind) else _BATCHES[device]
        return name, functools.partial(update_on, update(kind), inputs, batches, device), batches

    def is_slow(kind: str) -> bool:
        return device == "cuda" and kind.endswith(("fp32", "TF32"))

    for precision in ("fp32", "TF32") if device == "cuda" else ("fp32",):
        yield made(PLAIN + precision, PLAIN + precision, itertools.repeat(random_batch(batch, device)))
    for kind in kinds:
        yield made(f"step alone, {kind}", kind, itertools.repeat(random_batch(batch, device)))
        if loaded and not is_slow(kind):
            yield made(f"loader and step, {kind}", kind, load(index, batch, device))


def load(
    index: ShardIndex, batch: int, device: str, *, threads: int = 0, views: Sequence[ViewSpec] = ()
) -> Iterator[Batch]:
    """Yields batches of a loader, which starts at the first batch and stops when the iterator is deleted.

    Degradation is exact. Default: a thread for each core, and the views of the reference.
    """
    options: dict[str, Any] = {"views": views} if views else {}
    with Loader(index, batch_size=batch, device=device, mode="exact", threads=threads or cores(), **options) as loader:
        for loaded in loader:
            yield loaded.images, loaded.labels


def peak_memory(runs: Iterator[tuple[str, Run, int]]) -> Facts:
    """Peak of the GPU memory that PyTorch (not DALI) allocates to build and run each contender, as facts."""
    facts: Facts = {}
    while True:
        gc.collect()  # the previous contender
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        name, run, _ = next(runs, ("", None, 0))
        if run is None:
            return facts
        run()
        del run
        facts[f"PyTorch's peak memory, {name}"] = f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
