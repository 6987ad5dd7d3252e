"""bench speed gpu: everything that a GPU changes, in one command; without one its parts run on the CPU."""

from __future__ import annotations

import functools
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
_PLAIN, _ALONE = "plain step", "loader alone"
_OURS: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32"},
    "bf16": {"precision": "bf16"},
    "bf16, compiled": {"precision": "bf16", "compile": True},
}

Run = Callable[[], None]


def gpu(*, root: Path | None, folder: Path, rounds: int, quick: bool, device: str | None) -> Iterator[Timing]:
    """Decoding, degradation, and for each network the loader alone, the step alone and both.

    Args:
        root: data sets to take faces from; None: they are generated.  folder: for what is made.
        device: None for the default.
    """
    from benchmarks.speed.device import time_decoding, time_degradation
    from shards.index import ShardIndex

    device, threads = pick_device(device), len(os.sched_getaffinity(0))
    yield from time_decoding(root=root, folder=folder, rounds=rounds, quick=quick, device=device, threads=threads)
    yield from time_degradation(rounds=rounds, quick=quick, device=device)
    index = ShardIndex(folder / "device" / "shards")
    batch = min(2 if quick else _BATCH[device], len(index.labels))
    for backbone in ("spherenet4",) if quick else _BACKBONES:
        yield _training(index, backbone, device, threads, batch, rounds)


def _training(index: ShardIndex, backbone: str, device: str, threads: int, batch: int, rounds: int) -> Timing:
    """The loader alone, the step alone, and both; each at several precisions, compiled or not.

    Memory is measured first, a network at a time; then all networks are there, and their ways take turns.
    """
    from benchmarks.speed.device import GpuMemory, peak_memory
    from benchmarks.speed.timing import Contender, compare_times

    def update(kind: str) -> UpdateOn:
        plain = kind == _PLAIN
        return plain_update(backbone, device) if plain else our_update(backbone, batch, device, **_OURS[kind])

    ways = functools.partial(training_ways, index, batch=batch, device=device, threads=threads)
    facts = peak_memory(ways(update), GpuMemory()) if device == "cuda" else {}
    contenders = [
        Contender(
            name=name,
            role="ours" if place else "baseline",
            run=build(),
            amount=4 * batch * _BATCHES[device],
            gives="images" if name == _ALONE else "",  # and no step, so that it is not to be compared
        )
        for place, (name, build) in enumerate(ways(functools.cache(update)).items())
    ]
    title = f"training on the {device}, {backbone}, {batch} identities"
    return compare_times("gpu", title, contenders, unit="images", rounds=rounds, facts=facts)


def training_ways(
    index: ShardIndex, update: Callable[[str], UpdateOn], *, batch: int, device: str, threads: int
) -> dict[str, Callable[[], Run]]:
    """Each way by its name, the baseline first: a function that builds what it needs and returns what runs it.

    Args:
        update: builds the network for a kind of step, and returns its update.
    """
    from benchmarks.speed.device import loader_batches

    batches = _BATCHES[device]

    def steps(kind: str) -> Run:
        return _steps(update(kind), batch, batches, device)

    def both(kind: str) -> Run:
        return _both(index, update(kind), batch, batches, device, threads)

    ways: dict[str, Callable[[], Run]] = {f"{_PLAIN}, fp32": functools.partial(steps, _PLAIN)}
    for kind, settings in _OURS.items():
        if device == "cuda" or not settings.get("compile"):
            ways[f"step alone, {kind}"] = functools.partial(steps, kind)
            ways[f"loader and step, {kind}"] = functools.partial(both, kind)
    alone = functools.partial(loader_batches, index, batch=batch, batches=batches, device=device, threads=threads)
    return {**ways, _ALONE: alone}


def _steps(update: UpdateOn, batch: int, batches: int, device: str) -> Run:
    """Updates on one batch that is there already."""
    from benchmarks.speed.device import wait

    images, labels = random_batch(batch, device)

    def run() -> None:
        for _ in range(batches):
            update(images, labels)
        wait(device)

    return run


def _both(index: ShardIndex, update: UpdateOn, batch: int, batches: int, device: str, threads: int) -> Run:
    """Updates on batches as the loader gives them."""
    from benchmarks.speed.device import endless_batches, wait

    given = endless_batches(index, batch=batch, device=device, threads=threads)

    def run() -> None:
        for _ in range(batches):
            drawn = next(given)
            update(drawn.images, drawn.labels)
        wait(device)

    return run
