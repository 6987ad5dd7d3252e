"""What one size costs, to be called in a process of its own: light imports, for its memory is measured."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from benchmarks.speed.faces import build_tree
from benchmarks.speed.fresh import LEAST_MB, largest_mb, peak_mb, resident_mb
from benchmarks.speed.timing import silence
from shards.index import ShardIndex

BATCH = 128  # identities

Costs = dict[str, float]


def build_cost(tree: Path, out: Path, workers: int) -> Costs:
    """Builds the shards of a tree in VGGFace2's layout."""
    began = time.perf_counter()
    with silence():
        build_tree(tree, out, workers)
    return {"seconds": time.perf_counter() - began, "largest process MB": largest_mb()}


def start_cost(root: Path, rounds: int) -> Costs:
    """Opens a shard set ``rounds`` times and draws a batch.

    The median of opening; memory and the batch are of the first time, when nothing is warm but the files.
    """
    before, seconds = resident_mb(), []
    for _ in range(rounds):
        began = time.perf_counter()
        index = ShardIndex(root)
        seconds.append(time.perf_counter() - began)
        if len(seconds) == 1:
            grown, most = resident_mb() - before, peak_mb() - before
    began = time.perf_counter()
    from pipeline.load.loader import Loader  # torch and DALI: a cost of its own

    imported = time.perf_counter() - began
    began = time.perf_counter()
    with Loader(index, batch_size=min(BATCH, len(index.labels))) as batches:
        next(batches)
        first = time.perf_counter() - began
    return {
        "opening seconds": float(np.median(seconds)),
        "import seconds": imported,
        "first batch seconds": first,
        "index MB": max(grown, LEAST_MB),
        "index peak MB": max(most, LEAST_MB),
    }
