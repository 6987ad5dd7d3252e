"""What it costs to score identification against a gallery of any size."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.datasets.qmul import FALSE_IDENTIFICATION_RATES, WITHIN_RANK
from benchmarks.datasets.tinyface import REPORTED_RANKS
from benchmarks.scoring.protocols import ClosedSetProtocol, OpenSetProtocol, Search
from benchmarks.speed.fresh import LEAST_MB, peak_mb, resident_mb
from pipeline.prepare import Request

_WIDTH = 512  # of an embedding
_IMAGES = 10  # of an identity in the gallery, about as QMUL-SurvFace has
_STRANGER = -1


def search_cost(gallery: int, probes: int, rounds: int) -> dict[str, float]:
    """Scores random embeddings by the protocols of TinyFace and QMUL-SurvFace, in a process of its own.

    Memory is what is added to the embeddings and the names of their images: of the first round.
    """
    vectors = np.random.default_rng(0).standard_normal((probes + gallery, _WIDTH), np.float32)
    costs: dict[str, float] = {}
    for name, protocol in (("open set", _open_set(gallery, probes)), ("closed set", _closed_set(gallery, probes))):
        every = np.ones(len(vectors), bool)
        assert len(protocol.digests) == len(every)  # digests of the names, computed once
        seconds: list[float] = []
        before = resident_mb()
        for _ in range(rounds):
            began = time.perf_counter()
            for scored in protocol.score(vectors, every).values():
                scored.samples.metrics()
            seconds.append(time.perf_counter() - began)
            if len(seconds) == 1:
                most = peak_mb() - before
        costs |= {f"{name} seconds": float(np.median(seconds)), f"{name} MB": max(most, LEAST_MB)}
    return costs


def _open_set(gallery: int, probes: int) -> OpenSetProtocol:
    """Half of the probes are of people in the gallery."""
    gallery_ids = np.arange(gallery) // _IMAGES
    mated = np.arange(probes) % 2 == 0
    return OpenSetProtocol(
        **_asked(gallery, probes),
        search=Search(
            probes=np.arange(probes),
            probe_ids=np.where(mated, np.arange(probes) % (gallery_ids[-1] + 1), _STRANGER),
            gallery=np.arange(probes, probes + gallery),
            gallery_ids=gallery_ids,
        ),
        people=np.arange(probes),
        rates=FALSE_IDENTIFICATION_RATES,
        within=WITHIN_RANK,
    )


def _closed_set(gallery: int, probes: int) -> ClosedSetProtocol:
    """The gallery is of distractors but for two images of each probe's identity, as far as it reaches."""
    people = min(probes, gallery // 4)
    gallery_ids = np.where(np.arange(gallery) < 2 * people, np.arange(gallery) % people, _STRANGER)
    search = Search(
        probes=np.arange(probes),
        probe_ids=np.arange(probes) % people,
        gallery=np.arange(probes, probes + gallery),
        gallery_ids=gallery_ids,
    )
    return ClosedSetProtocol(
        **_asked(gallery, probes), searches={"{}": search}, reported=REPORTED_RANKS, mean_precision=True
    )


def _asked(gallery: int, probes: int) -> dict[str, Any]:
    return {
        "name": "made",
        "title": "random embeddings",
        "root": Path("made"),
        "requests": [Request(path=Path(f"{number:07d}.jpg")) for number in range(probes + gallery)],
        "main": "rank1",
        "published_counts": {},
    }
