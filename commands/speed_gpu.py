"""bench speed gpu: everything that a GPU changes, in one command; without one its parts run on the CPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from commands.options import pick_device
from commands.speed_step import UpdateOn, our_update, plain_update, random_batch

if TYPE_CHECKING:
    from benchmarks.speed.timing import Timing
    from shards.index import ShardIndex

_BACKBONES = ("spherenet20", "ir50")
_BATCH = {"cuda": 128, "cpu": 8}  # identities
_BATCHES = {"cuda": 20, "cpu": 2}  # of a call


def gpu(*, root: Path | None, folder: Path, rounds: int, quick: bool, device: str | None) -> Iterator[Timing]:
    """Decoding, degradation, and for each network the loader alone, the step alone and both.

    Args:
        root: data sets to take faces from; None: they are generated.  folder: for what is made.
        device: None for the default.

    Raises:
        LandmarkError: ``root`` has no landmarks that can be read.
    """
    from benchmarks.speed.device import time_decoding, time_degradation
    from shards.index import ShardIndex

    device, threads = pick_device(device), len(os.sched_getaffinity(0))
    yield from time_decoding(root=root, folder=folder, rounds=rounds, quick=quick, device=device, threads=threads)
    yield from time_degradation(rounds=rounds, quick=quick, device=device)
    index = ShardIndex(folder / "device")
    for backbone in ("spherenet4",) if quick else _BACKBONES:
        yield _training(index, backbone, device, threads, 2 if quick else _BATCH[device], rounds)


def _training(index: ShardIndex, backbone: str, device: str, threads: int, batch: int, rounds: int) -> Timing:
    """The loader alone, the step alone, and both; each at several precisions, compiled or not."""
    from benchmarks.speed.device import loader_batches
    from benchmarks.speed.timing import Contender, compare_times

    batch, batches = min(batch, len(index.labels)), _BATCHES[device]
    settings: dict[str, dict[str, Any]] = {"fp32": {"precision": "fp32"}, "bf16": {"precision": "bf16"}}
    if device == "cuda":
        settings["bf16, compiled"] = {"precision": "bf16", "compile": True}
    plain = plain_update(backbone, device)
    ways: dict[str, Callable[[], None]] = {"plain step, fp32": _steps(plain, batch, batches, device)}
    for name, how in settings.items():
        update = our_update(backbone, batch, device, **how)
        ways[f"step alone, {name}"] = _steps(update, batch, batches, device)
        ways[f"loader and step, {name}"] = _both(index, update, batch, batches, device, threads)
    ways["loader alone"] = loader_batches(index, batch=batch, batches=batches, device=device, threads=threads)
    contenders = [
        Contender(name=name, role="ours" if place else "baseline", run=run, amount=4 * batch * batches)
        for place, (name, run) in enumerate(ways.items())
    ]
    return compare_times(
        "gpu",
        f"training on the {device}, {backbone}, {batch} identities",
        contenders,
        unit="images",
        rounds=rounds,
        facts=_peaks(ways, device),
    )


def _steps(update: UpdateOn, batch: int, batches: int, device: str) -> Callable[[], None]:
    """Updates on one batch that is there already."""
    from benchmarks.speed.device import wait

    images, labels = random_batch(batch, device)

    def run() -> None:
        for _ in range(batches):
            update(images, labels)
        wait(device)

    return run


def _both(
    index: ShardIndex, update: UpdateOn, batch: int, batches: int, device: str, threads: int
) -> Callable[[], None]:
    """Updates on batches as the loader gives them."""
    from benchmarks.speed.device import wait
    from pipeline.loader import Loader

    def run() -> None:
        with Loader(index, batch_size=batch, device=device, threads=threads) as loader:
            for _ in range(batches):
                given = next(loader)
                update(given.images, given.labels)
        wait(device)

    return run


def _peaks(ways: dict[str, Callable[[], None]], device: str) -> dict[str, str]:
    """Peak memory of the GPU in each way, from a run that is not timed."""
    import torch

    facts = {}
    for name, run in ways.items() if device == "cuda" else ():
        torch.cuda.reset_peak_memory_stats()
        run()
        facts[f"peak memory, {name}"] = f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
    return facts
