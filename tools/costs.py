"""Time and memory of building, opening and searching at one size; call these in a fresh process."""

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
from typing import Any

import numpy as np

from benchmarks.speed.faces import build_tree
from pipeline.prepare import Request
from shards.index import ShardIndex

BATCH = 128  # identities
EMBEDDING_SIZE = 512
GALLERY_IMAGES = 10  # of an identity in an open set, about as in QMUL-SurvFace
MIN_MB = 4096 / 1e6  # one page, for a logarithmic axis

Costs = dict[str, float]


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
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


def search_cost(gallery: int, probes: int, rounds: int) -> Costs:
    """Scores random embeddings with the protocols of QMUL-SurvFace and TinyFace, ``rounds`` times for the median.

    Memory is that of the first round, without the embeddings and the names of their images.
    """
    vectors = np.random.default_rng(0).standard_normal((probes + gallery, EMBEDDING_SIZE), np.float32)
    valid = np.ones(len(vectors), bool)
    costs: Costs = {}
    for name, protocol in _protocols(gallery, probes).items():
        assert len(protocol.digests) == len(valid)  # computed once, before the timing
        before, seconds = resident_mb(), []
        for _ in range(rounds):
            start = time.perf_counter()
            for scored in protocol.score(vectors, valid).values():
                scored.samples.metrics()
            seconds.append(time.perf_counter() - start)
            if len(seconds) == 1:
                peak = peak_mb() - before
        costs |= {f"{name} seconds": float(np.median(seconds)), f"{name} MB": max(peak, MIN_MB)}
    return costs


def _protocols(gallery: int, probes: int) -> dict[str, Any]:
    """Half of the open set's probes are in its gallery. Two thirds or more of the closed set's gallery are distractors."""
    from benchmarks.datasets.qmul import FALSE_IDENTIFICATION_RATES, WITHIN_RANK  # with SciPy, unlike the other costs
    from benchmarks.datasets.tinyface import REPORTED_RANKS
    from benchmarks.scoring.searches import ClosedSetProtocol, OpenSetProtocol, Search

    probe, row = np.arange(probes), np.arange(gallery)
    images = {"probes": probe, "gallery": row + probes}
    known = row // GALLERY_IMAGES
    mated = np.where(probe % 2 == 0, probe % (known[-1] + 1), -1)
    people = min(probes, gallery // 4)
    mates = np.where(row < 2 * people, row % people, -1)
    requests = [Request(path=Path(f"{number:07d}.jpg")) for number in range(probes + gallery)]
    names = {"name": "random", "title": "random", "main": "rank1", "root": Path(), "published_counts": {}}
    fields: dict[str, Any] = {**names, "requests": requests}
    return {
        "open set": OpenSetProtocol(
            **fields,
            search=Search(**images, probe_ids=mated, gallery_ids=known),
            people=probe,
            rates=FALSE_IDENTIFICATION_RATES,
            within=WITHIN_RANK,
        ),
        "closed set": ClosedSetProtocol(
            **fields,
            searches={"{}": Search(**images, probe_ids=probe % people, gallery_ids=mates)},
            reported=REPORTED_RANKS,
            mean_precision=True,
        ),
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
