"""Costs of building and loading generated faces, at sizes from which a model is fitted and at others."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.speed.faces import Setup, build_tree, write_tree
from benchmarks.speed.timing import cores
from shards.index import ShardIndex
from shards.schema import INDEX
from tools.costs import Costs, in_fresh_process
from tools.scale import jittered_faces

FITTED_IMAGES, PREDICTED_IMAGES = (4000, 12_000), (5000, 50_000)
QUICK = 20  # times fewer in a quick run
FACES = 512  # distinct ones; the other images are links to their files
WORKERS, PARENT = "build, workers, CPU s", "build, parent, CPU s"
STORED, INDEX_SIZE = "set without its index, MB", "index.parquet, MB"
LOADER = "loader, one pass, CPU s"
BATCH, VIEWS = 8, (128, 8, 12, 16)  # identities; px


def measured(scratch: Path, rounds: int, quick: bool) -> dict[int, Costs]:
    """Medians by number of images; the sizes take turns, and each is measured in fresh processes."""
    divisor = QUICK if quick else 1
    sizes = sorted({images // divisor for images in FITTED_IMAGES + PREDICTED_IMAGES})
    setup = Setup(root=None, scratch=scratch, rounds=1, quick=True)
    faces = jittered_faces(setup.data_sets(), FACES // divisor)
    trees = {images: write_tree(faces, scratch / f"tree-{images}", images=images, grey=False) for images in sizes}
    found: dict[int, list[Costs]] = {images: [] for images in sizes}
    for number in range(rounds + 1):
        for images, tree in trees.items():
            out = scratch / "set"
            costs = in_fresh_process(build_cpu, tree, out) | in_fresh_process(loader_cpu, out, images)
            shutil.rmtree(out)
            print(f"round {number}: {images:,} images: {costs}", file=sys.stderr)
            if number:  # the first round fills caches
                found[images].append(costs)
    return {
        images: {name: float(np.median([one[name] for one in costs])) for name in costs[0]}
        for images, costs in found.items()
    }


def build_cpu(tree: Path, out: Path) -> Costs:
    """Builds the shards of a tree with a process on each core."""
    before = os.times()
    with contextlib.redirect_stderr(io.StringIO()):
        build_tree(tree, out, cores())
    after = os.times()
    index = (out / INDEX).stat().st_size
    return {
        WORKERS: after.children_user + after.children_system - before.children_user - before.children_system,
        PARENT: after.user + after.system - before.user - before.system,
        STORED: (sum(path.stat().st_size for path in out.iterdir()) - index) / 1e6,
        INDEX_SIZE: index / 1e6,
    }


def loader_cpu(root: Path, images: int) -> Costs:
    """Opens a set and draws as many images as it has, in batches of ``BATCH`` identities with four views."""
    from pipeline.load.loader import Loader  # torch and DALI

    index = ShardIndex(root)
    before = time.process_time()
    with Loader(index, batch_size=min(BATCH, len(index.labels)), views=[(s, s) for s in VIEWS], mode="fast") as loader:
        for _ in range(max(images // (BATCH * len(VIEWS)), 1)):
            next(loader)
    return {LOADER: time.process_time() - before}
