"""Stage ``build``: source images to shards, against one file per image and against the bare library calls."""

from __future__ import annotations

import functools
import itertools
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from benchmarks.speed import faces
from benchmarks.speed.baselines import align_files, similarity
from benchmarks.speed.faces import CROP_SIZE, JPEG_QUALITY, Face, Setup
from benchmarks.speed.timing import Contender, Timing, compare_times, cores
from pipeline.align import fit_similarity, template_points, warp
from pipeline.executors import WorkerPool
from pipeline.images.decode import decode_bytes

_SHARD_FACES = 5000  # in one similarity fit
_FACES, _QUICK_FACES, _LARGE_FACES = 256, 32, 16  # distinct faces; large images of more would take gigabytes
_LARGE_WIDTH = 1000  # px
# Size in px; images of a build; of the baseline, whole batches for 2 or 4 workers; of a quick run.
_SOURCES = (
    ((160, 160), 120_000, 6144, 200),
    ((400, 500), 40_000, 2048, 60),
    ((3072, 2048), 2000, 256, 4),
)
_BARE_SHARE = 4  # the bare calls process a quarter of the images


def time_build(setup: Setup) -> Iterator[Timing]:
    """Times sources of several sizes, in colour and in grey, as many data sets are."""
    found = faces.read_faces(setup.data_sets(), _QUICK_FACES if setup.quick else _FACES)
    yield _time_fit(np.stack([face.points for face in found]), setup.rounds)
    for size, full, plain, few in _SOURCES:
        large = size[0] > _LARGE_WIDTH
        images = few if setup.quick else full
        sources = [faces.resized(face, *size) for face in found[: _LARGE_FACES if large else images]]
        for grey in (False,) if large or setup.quick else (False, True):
            yield _time_source(setup, sources, images, min(plain, images), grey)


def _time_fit(landmarks: np.ndarray, rounds: int) -> Timing:
    """Times the similarity fit of (N, 5, 2) landmarks."""
    template, count = template_points("seed", CROP_SIZE), len(landmarks)
    shard = np.resize(landmarks, (_SHARD_FACES, 5, 2))
    contenders = [
        Contender(
            "least squares, face by face", "baseline", lambda: [similarity(p, template) for p in landmarks], count
        ),
        Contender("closed form, a shard", "ours", lambda: fit_similarity(shard, template), _SHARD_FACES),
    ]
    return compare_times("build", "similarity fit", contenders, unit="faces", rounds=rounds, facts={})


def _time_source(setup: Setup, sources: Sequence[Face], images: int, plain: int, grey: bool) -> Timing:
    """Times building ``images`` images, of which the baseline aligns the first ``plain``."""
    tree, files, out = (setup.scratch / "build" / name for name in ("tree", "files", "shards"))
    remove = functools.partial(shutil.rmtree, ignore_errors=True)
    remove(tree.parent)
    faces.write_tree(sources, tree, images=images, grey=grey)
    calls = -(-images // _BARE_SHARE)
    align = functools.partial(align_files, tree, files, plain, cores())
    build = functools.partial(faces.build_tree, tree, out, cores())
    facts = {"workers": str(cores()), "images of a build": f"{images:,}"}
    height, width = sources[0].image.shape[:2]
    title = f"build, {width} x {height} px, {'grey' if grey else 'colour'}"
    with WorkerPool(cores()) as pool:
        bare = functools.partial(bare_calls, pool, cores(), tree, calls)
        bare(as_built=False)  # the workers read the images
        contenders = [
            Contender("file per image, DataLoader", "baseline", align, plain, prepare=lambda: remove(files)),
            Contender("build-shards", "ours", build, images, prepare=lambda: remove(out)),
            Contender("bare decode + warp + encode", "floor", lambda: bare(as_built=False), calls),
            Contender("the same, as the build calls them", "floor", lambda: bare(as_built=True), calls),
        ]
        return compare_times("build", title, contenders, rounds=setup.rounds, facts=facts, warmup=int(not setup.quick))


def bare_calls(pool: WorkerPool, workers: int, tree: Path, images: int, *, as_built: bool) -> int:
    """Decodes, warps and encodes images in memory, in the ordinary way or as the build does; returns the bytes."""
    shares = [len(range(first, images, workers)) for first in range(workers)]
    return sum(pool.map(functools.partial(_decode_warp_encode, tree, as_built=as_built), shares))


@functools.cache
def _load(tree: Path) -> list[tuple[bytes, np.ndarray]]:
    """JPEG and matrix of each face, read once by each worker process."""
    cv2.setNumThreads(1)
    paths, points = zip(*faces.read_tree(tree, _FACES), strict=True)
    matrices, _ = fit_similarity(np.stack(points), template_points("seed", CROP_SIZE))
    return [(path.read_bytes(), matrix) for path, matrix in zip(paths, matrices, strict=True)]


def _decode_warp_encode(tree: Path, count: int, as_built: bool) -> int:
    total = 0
    for jpeg, matrix in itertools.islice(itertools.cycle(_load(tree)), count):
        if as_built:  # a grey image as one channel, with a black border
            crop = warp(decode_bytes(jpeg, grey=True), matrix, CROP_SIZE)
            if crop.ndim == 2:
                crop = cv2.cvtColor(crop, cv2.COLOR_GRAY2BGR)
        else:
            image = simplejpeg.decode_jpeg(jpeg, "BGR")
            crop = cv2.warpAffine(image, matrix, (CROP_SIZE, CROP_SIZE), flags=cv2.INTER_CUBIC)
        total += len(cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1])
    return total
