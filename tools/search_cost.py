"""Time and memory of identification against a gallery of any size; call this in a fresh process."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.datasets.qmul import FALSE_IDENTIFICATION_RATES, WITHIN_RANK
from benchmarks.datasets.tinyface import REPORTED_RANKS
from benchmarks.scoring.protocols import ClosedSetProtocol, OpenSetProtocol, Search
from pipeline.prepare import Request
from tools.costs import MIN_MB, Costs, peak_mb, resident_mb

EMBEDDING_SIZE = 512
GALLERY_IMAGES = 10  # of an identity, about as in QMUL-SurvFace


def search_cost(gallery: int, probes: int, rounds: int) -> Costs:
    """Scores random embeddings with the protocols of QMUL-SurvFace and TinyFace, ``rounds`` times for the median.

    Memory is that of the first round, without the embeddings and the names of their images.
    """
    vectors = np.random.default_rng(0).standard_normal((probes + gallery, EMBEDDING_SIZE), np.float32)
    costs: Costs = {}
    for name, protocol in (("open set", _open_set(gallery, probes)), ("closed set", _closed_set(gallery, probes))):
        valid = np.ones(len(vectors), bool)
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


def _open_set(gallery: int, probes: int) -> OpenSetProtocol:
    """Half of the probes are of people in the gallery."""
    identities = np.arange(gallery) // GALLERY_IMAGES
    mated = np.arange(probes) % 2 == 0
    search = Search(
        probes=np.arange(probes),
        probe_ids=np.where(mated, np.arange(probes) % (identities[-1] + 1), -1),
        gallery=np.arange(probes, probes + gallery),
        gallery_ids=identities,
    )
    fields = _fields(gallery, probes)
    rates = FALSE_IDENTIFICATION_RATES
    return OpenSetProtocol(**fields, search=search, people=np.arange(probes), rates=rates, within=WITHIN_RANK)


def _closed_set(gallery: int, probes: int) -> ClosedSetProtocol:
    """Two images of each probe's identity, as far as the gallery reaches; the others are distractors."""
    people = min(probes, gallery // 4)
    search = Search(
        probes=np.arange(probes),
        probe_ids=np.arange(probes) % people,
        gallery=np.arange(probes, probes + gallery),
        gallery_ids=np.where(np.arange(gallery) < 2 * people, np.arange(gallery) % people, -1),
    )
    fields = _fields(gallery, probes)
    return ClosedSetProtocol(**fields, searches={"{}": search}, reported=REPORTED_RANKS, mean_precision=True)


def _fields(gallery: int, probes: int) -> dict[str, Any]:
    requests = [Request(path=Path(f"{number:07d}.jpg")) for number in range(probes + gallery)]
    texts = {"name": "random", "title": "random embeddings", "root": Path("random"), "main": "rank1"}
    return {**texts, "requests": requests, "published_counts": {}}
