"""What building, opening, reading and searching cost as a data set grows; a process of its own for each size."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.speed import VGGFACE2
from benchmarks.speed.cold import UncountedError, cold_read
from benchmarks.speed.costs import BATCH, Costs, build_cost, start_cost
from benchmarks.speed.faces import Face, data_root, read_faces, resized, write_vggface2
from benchmarks.speed.fresh import in_fresh_process
from benchmarks.speed.made import make_set
from benchmarks.speed.results import Scaling
from benchmarks.speed.search import search_cost
from pipeline.progress import Progress
from shards.index import ShardIndex

_SOURCE_PX = 160
_FACES, _MOVED_PX = 4096, 2.0
_PROBES = 1000


def time_scale(*, root: Path | None, folder: Path, rounds: int, quick: bool) -> Iterator[Scaling]:
    """The stage: five tables; ``rounds`` are of what takes moments, the median counts.

    Args:
        root: a user's data sets.  folder: for what is made; needs 3 GB, or 50 MB if ``quick``.

    Raises:
        RootError: ``root`` has no faces of VGGFace2.
    """
    faces = _faces(data_root(root, folder, quick=quick), 64 if quick else _FACES)
    tree_sizes = [250, 1000] if quick else [1000, 10_000, 100_000]
    base = folder / "base"
    workers = 1 if quick else len(os.sched_getaffinity(0))
    yield _measured(
        "build",
        "Building shards",
        "images",
        tree_sizes,
        lambda size: _build_of(
            faces, folder, size, workers, base if size == tree_sizes[1] else folder / f"built-{size}"
        ),
        {
            "workers": str(workers),
            "source images": f"{_SOURCE_PX} px, hard links to {len(faces):,} files, so in the page cache",
        },
    )
    few = faces[:8] if quick else faces[:32]
    yield _measured(
        "source",
        f"Building from larger sources, {len(few)} images",
        "pixels",
        [width * width * 2 // 3 for width in ([160, 640] if quick else [160, 480, 1440, 3072])],
        lambda pixels: _large_build(few, folder, round((pixels * 1.5) ** 0.5)),
        {"larger sources": "3:2, one worker"},
    )
    yield _measured(
        "loader",
        "Starting a loader",
        "rows",
        [1000, 4000] if quick else [10_000, 100_000, 1_000_000, VGGFACE2[0]],
        lambda size: _start_of(base, folder / f"made-{size}", size, rounds),
        {"first batch": f"{BATCH} identities, default views, on the CPU; after the import of torch and DALI"},
    )
    yield from _cold(ShardIndex(base), [16, 64] if quick else [32, 128, 512, 2048])
    yield _measured(
        "search",
        "Identification",
        "gallery",
        [500, 2000] if quick else [1000, 10_000, 50_000, 150_000],
        lambda size: in_fresh_process(search_cost, size, size // 5 if quick else _PROBES, rounds),
        {
            "probes": "a fifth of the gallery" if quick else f"{_PROBES:,}",
            "memory of identification": "what scoring adds to the embeddings",
        },
    )


def _measured(
    name: str, title: str, unit: str, sizes: list[int], cost: Callable[[int], Costs], facts: dict[str, str]
) -> Scaling:
    with Progress(f"bench speed scale: {name}", len(sizes), "sizes") as progress:
        found = []
        for size in sizes:
            found.append(cost(size))
            progress.update()
    return Scaling(
        stage=f"scale-{name}",
        title=title,
        unit=unit,
        sizes=sizes,
        costs={cost: [one[cost] for one in found] for cost in found[0]},
        facts=facts,
    )


def _faces(root: Path, count: int) -> list[Face]:
    """Faces of ``_SOURCE_PX``; of one image several, with landmarks a little apart, so that crops differ."""
    found = [resized(face, _SOURCE_PX, _SOURCE_PX) for face in read_faces(root, count)]
    rng = np.random.default_rng(0)
    return [
        Face(image=face.image, points=face.points + rng.uniform(-_MOVED_PX, _MOVED_PX, 2))
        for face in (found[number % len(found)] for number in range(count))
    ]


def _build_of(faces: list[Face], folder: Path, images: int, workers: int, out: Path) -> Costs:
    tree = write_vggface2(faces, folder / f"tree-{images}", images=images, grey=False, linked=True)
    try:
        return in_fresh_process(build_cost, tree, out, workers)
    finally:
        shutil.rmtree(tree)


def _large_build(faces: list[Face], folder: Path, width: int) -> Costs:
    large = [resized(face, width, width * 2 // 3) for face in faces]
    tree = write_vggface2(large, folder / "large" / "tree", images=len(large), grey=False)
    try:
        return in_fresh_process(build_cost, tree, folder / "large" / "shards", 1)
    finally:
        shutil.rmtree(folder / "large")


def _start_of(base: Path, made: Path, rows: int, rounds: int) -> Costs:
    make_set(base, made, rows)
    try:
        return in_fresh_process(start_cost, made, rounds)
    finally:
        shutil.rmtree(made)


def _cold(index: ShardIndex, sizes: list[int]) -> Iterator[Scaling]:
    """Nothing where the file system does not let itself be measured."""
    rng = np.random.default_rng(0)
    try:
        found = [cold_read(index, rng.choice(len(index), size, replace=False)) for size in sizes]
    except UncountedError as error:
        print(f"bench speed scale: cold reading is not measured: {error}", file=sys.stderr)
        return
    wanted, fetched = ([getattr(one, name) / 1e6 for one in found] for name in ("wanted", "fetched"))
    factor = sum(fetched) / sum(wanted)
    yield Scaling(
        stage="scale-cold",
        title=f"Cold cache: {factor:.2f} bytes read for one wanted",
        unit="images",
        sizes=sizes,
        costs={"wanted MB": wanted, "fetched MB": fetched},
        facts={"bytes fetched": found[0].counted},
    )
