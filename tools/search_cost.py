#!/usr/bin/env python3
"""Time, memory and recall of ``search``, exact and with FAISS, on generated embeddings.

    python tools/search_cost.py FOLDER --gallery 1000000 --probes 1000 [--length 512] [--variants pq ivf:64 hnsw flat]

Writes the tables into FOLDER once, and prints a table in Markdown. Each variant runs in a process of its own. ``exact``
and ``pq`` are those of ``search``; ``flat``, ``ivf:N`` (N clusters visited) and ``hnsw`` are other indexes of FAISS.

The embeddings form clusters like those of a face network: people are directions of a Gaussian whose variance falls along its
axes, with cosines of 0 +- 0.06 between people. The cosine of two gallery images of a person is 0.6, and that of a probe with
them 0.35, as for small faces.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.engine.identities import IDENTITY, IMAGE_SCHEMA
from benchmarks.search.run import search_tables
from benchmarks.search.table import EmbeddingTable
from shards.schema import STATUS_OK
from tools.costs import in_fresh_process, peak_mb

TOP = 10
IMAGES = 5  # of a person in the gallery
GALLERY_NOISE, PROBE_NOISE = 0.816, 2.0  # length of what is added to a person's direction
DECAY = 128  # axes until the variance has fallen to 1 / e
METADATA = {"backbone": "generated", "digest": "generated", "preprocessing": "{}", "alignment": "none", "down": ""}
GROUP = 8192
Matches = dict[str, set[str]]  # of each probe


def faces(people: np.ndarray, images: np.ndarray, length: int, noise: float) -> np.ndarray:
    """(N, D) float32 unit vectors of the images ``images`` of ``people``, (N,) each."""
    scale = np.exp(-np.arange(length) / (2 * DECAY))
    scale *= 1 / np.linalg.norm(scale)

    def directions(*seeds: int) -> np.ndarray:
        return np.random.default_rng(seeds).standard_normal(length, np.float32) * scale

    vectors = np.stack(
        [
            directions(0, person) + noise * directions(1, person, image)
            for person, image in zip(people.tolist(), images.tolist(), strict=True)
        ]
    )
    return (vectors / np.linalg.norm(vectors, axis=1)[:, None]).astype(np.float32)


def write_faces(path: Path, people: np.ndarray, images: np.ndarray, length: int, noise: float) -> None:
    """Writes a table of generated faces as ``embed`` would, unless it is there."""
    if path.exists():
        return
    schema = IMAGE_SCHEMA.append(IDENTITY).with_metadata(METADATA)
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=["status"]) as file:
        for start in range(0, len(people), GROUP):
            some = slice(start, start + GROUP)
            vectors = faces(people[some], images[some], length, noise)
            count = len(vectors)
            offsets = pa.array(np.arange(count + 1, dtype=np.int32) * length)
            names = [f"{path.stem}/{who}/{image}.jpg" for who, image in zip(people[some], images[some], strict=True)]
            columns = [
                pa.array(names),
                pa.ListArray.from_arrays(offsets, pa.array(vectors.ravel())),
                pa.array(np.ones(count, np.float32)),
                pa.array([STATUS_OK] * count),
                pa.nulls(count, pa.string()),
                pa.array([str(who) for who in people[some]]),
            ]
            file.write_table(pa.table(columns, schema=schema))


def search_cost(gallery: Path, probes: Path, variant: str) -> dict[str, Any]:
    """Seconds, peak memory and the rows found of one variant; call this in a fresh process."""
    out = gallery.with_name(f"matches-{variant.replace(':', '-')}.parquet")
    start = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):
        if variant in ("exact", "pq"):
            search_tables(gallery, probes, out, top=TOP, approximate=variant == "pq")
            table = pq.read_table(out, columns=["probe", "gallery"], use_threads=False)
            found = _by_probe(table["probe"].to_pylist(), table["gallery"].to_pylist())
            built: float | None = None
        else:
            built, found = _faiss_matches(gallery, probes, variant)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": time.perf_counter() - start,
        "build": built,
        "cpu": usage.ru_utime + usage.ru_stime,
        "mb": peak_mb(),
        "found": found,
    }


def _faiss_matches(gallery: Path, probes: Path, variant: str) -> tuple[float, Matches]:
    """Seconds of building an index, and the best matches."""
    import faiss

    with EmbeddingTable(gallery) as table, EmbeddingTable(probes) as queries:
        start = time.perf_counter()
        vectors = np.concatenate([block.vectors for block in table.blocks()])
        index: Any
        if variant == "flat":
            index = faiss.IndexFlatIP(table.length)
        elif variant == "hnsw":
            index = faiss.IndexHNSWFlat(table.length, 32, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efSearch = 64
        else:
            clusters = int(len(vectors) ** 0.5)
            index = faiss.IndexIVFFlat(
                faiss.IndexFlatIP(table.length), table.length, clusters, faiss.METRIC_INNER_PRODUCT
            )
            index.nprobe = int(variant.removeprefix("ivf:"))
            index.train(vectors[np.random.default_rng(0).permutation(len(vectors))[: 64 * clusters]])
        index.add(vectors)
        built = time.perf_counter() - start
        rows = index.search(np.concatenate([block.vectors for block in queries.blocks()]), TOP)[1].ravel()
        names, faces = ([name for _, part in one.paths() for name in part.to_pylist()] for one in (queries, table))
        return built, _by_probe(np.repeat(names, TOP).tolist(), [faces[row] for row in rows])


def _by_probe(probes: list[str], faces: list[str]) -> Matches:
    found: Matches = {}
    for probe, face in zip(probes, faces, strict=True):
        found.setdefault(probe, set()).add(face)
    return found


def recall(found: Matches, exact: Matches, *, mates: bool) -> float:
    """Share of the exact matches, or of those that show the probe's person, that another variant found."""
    wanted = {
        probe: {face for face in faces if not mates or _person(face) == _person(probe)}
        for probe, faces in exact.items()
    }
    return sum(len(faces & found[probe]) for probe, faces in wanted.items()) / sum(map(len, wanted.values()))


def _person(path: str) -> str:
    return path.split("/")[-2]


def main() -> None:
    """Prints a row for each variant, the exact one first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gallery", type=int, default=100_000)
    parser.add_argument("--probes", type=int, default=1000)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--variants", nargs="*", default=["pq"])
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    gallery, probes = (
        options.folder / f"{name}-{count}-{options.length}.parquet"
        for name, count in (("gallery", options.gallery), ("probes", options.probes))
    )
    rows = np.arange(options.gallery)
    write_faces(gallery, rows // IMAGES, rows % IMAGES, options.length, GALLERY_NOISE)
    people = max(options.gallery // IMAGES, 1)
    probe = np.arange(options.probes)
    write_faces(probes, probe * 7919 % people, IMAGES + probe // people, options.length, PROBE_NOISE)
    title = f"{options.probes:,} probes, {options.gallery:,} x {options.length}"
    print(f"| {title} | s | of it, building | CPU s | peak MB | recall@{TOP} | of mates |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    exact: Matches = {}
    for variant in ["exact", *options.variants]:
        cost = in_fresh_process(search_cost, gallery, probes, variant)
        exact = exact or cost["found"]
        built = "-" if cost["build"] is None else f"{cost['build']:.1f}"
        cells = [f"{cost['seconds']:.1f}", built, f"{cost['cpu']:.1f}", f"{cost['mb']:,.0f}"]
        cells += [f"{recall(cost['found'], exact, mates=mates):.3f}" for mates in (False, True)]
        print(f"| {variant} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
