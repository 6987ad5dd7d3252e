"""Time and memory of building and opening at one size; call these in a fresh process."""

from __future__ import annotations

import concurrent.futures as futures
import contextlib
import io
import multiprocessing
import re
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks.speed.faces import build_tree
from shards.index import ShardIndex

BATCH = 128  # identities
MIN_MB = 4096 / 1e6  # one page, for a logarithmic axis

Costs = dict[str, float]
Result = TypeVar("Result")


def in_fresh_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """Calls ``function`` in a new interpreter, in which nothing is imported, opened or cached."""
    with futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def build_cost(tree: Path, out: Path, workers: int) -> Costs:
    """Builds the shards of a tree."""
    start = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):
        build_tree(tree, out, workers)
    children_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6
    return {"seconds": time.perf_counter() - start, "largest process MB": max(peak_mb(), children_mb)}


def start_cost(root: Path, rounds: int) -> Costs:
    """Opens a shard set, ``rounds`` times for the median, and loads a batch."""
    before, seconds = resident_mb(), []
    for _ in range(rounds):
        start = time.perf_counter()
        index = ShardIndex(root)
        seconds.append(time.perf_counter() - start)
        if len(seconds) == 1:
            grown, peak = resident_mb() - before, peak_mb() - before
    start = time.perf_counter()
    from pipeline.load.loader import Loader  # torch and DALI

    imported = time.perf_counter() - start
    start = time.perf_counter()
    with Loader(index, batch_size=min(BATCH, len(index.labels))) as batches:
        next(batches)
        first = time.perf_counter() - start
    return {
        "opening seconds": float(np.median(seconds)),
        "import seconds": imported,
        "first batch seconds": first,
        "index MB": max(grown, MIN_MB),
        "index peak MB": max(peak, MIN_MB),
    }


def resident_mb() -> float:
    """Memory of this process, MB."""
    return _status_mb("VmRSS")


def peak_mb() -> float:
    """Peak memory of this process, MB; getrusage's value would include that of the parent before the fork."""
    return _status_mb("VmHWM")


def _status_mb(name: str) -> float:
    found = re.search(rf"^{name}:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found, f"no {name} in /proc/self/status"
    return int(found[1]) * 1024 / 1e6
