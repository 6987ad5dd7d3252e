"""``bench speed build``: from source files to stored crops, against a file per image and against bare calls in memory."""

from __future__ import annotations

import contextlib
import csv
import functools
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
from torch.utils.data import DataLoader, Dataset

from benchmarks.speed.faces import build_tree, data_root, read_faces, resized, write_vggface2
from benchmarks.speed.plain import plain_batches
from benchmarks.speed.timing import Contender, Timing, compare_times, silence
from pipeline.align import fit_similarity, template_points, warp
from pipeline.executors import WorkerPool
from pipeline.sources.images import decode_bytes

_SIZE, _QUALITY = 128, 95
_FITS = 5000  # faces of a shard
_FACES, _FACES_LARGE = 256, 16  # distinct ones, repeated as often as needed
_LARGE = 1000  # px of width from which on there are few, or they would take gigabytes
# px, images of a build, images for the plain one: whole batches for each of 2 or 4 workers; images if quick
_SOURCES = (
    ((160, 160), 120_000, 6144, 200),
    ((400, 500), 40_000, 2048, 60),
    ((3072, 2048), 2000, 256, 4),
)
_PLAIN_BATCH = 64
_BARE = 4  # images of a build for one of bare calls


def time_build(*, root: Path | None, folder: Path, rounds: int, quick: bool) -> Iterator[Timing]:
    """Sources of several sizes, with colours and, as many data sets of the field are, grey.

    Args:
        root: data sets to take faces from; None: generated ones.  folder: for everything that is written.

    Raises:
        RootError: ``root`` has no faces of VGGFace2.
    """
    faces = read_faces(data_root(root, folder, quick=quick), 32 if quick else _FACES)
    yield _time_fit(np.stack([face.points for face in faces]), rounds)
    for (width, height), images, plain, few in _SOURCES:
        for grey in (False, True) if width <= _LARGE and not quick else (False,):
            count = few if quick else images
            distinct = _FACES_LARGE if width > _LARGE else count
            sources = [resized(face, width, height) for face in faces[:distinct]]
            title = f"build, {width} x {height} px, {'grey' if grey else 'colour'}"
            tree = write_vggface2(sources, _emptied(folder / "build") / "tree", images=count, grey=grey, linked=True)
            contenders = _contenders(tree, images=count, plain=min(plain, count))
            with _one_thread(), contenders as ways:
                facts = {"workers": str(_workers()), "images of a build": f"{count:,}"}
                warm_up = 0 if quick else 1
                yield compare_times("build", title, ways, unit="images", rounds=rounds, warm_up=warm_up, facts=facts)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """The workers of a DataLoader are forked, and OpenCV's threads would be missing in them."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _time_fit(landmarks: np.ndarray, rounds: int) -> Timing:
    """The similarity fit of a shard of (N, 5, 2) landmarks."""
    template, shard = template_points("seed", _SIZE), np.resize(landmarks, (_FITS, 5, 2))
    contenders = [
        Contender(
            name="least squares, face by face",
            role="baseline",
            run=lambda: [plain_similarity(points, template) for points in landmarks],
            amount=len(landmarks),
        ),
        Contender(name="closed form, a shard", role="ours", run=lambda: fit_similarity(shard, template), amount=_FITS),
    ]
    return compare_times("build", "similarity fit", contenders, unit="faces", rounds=rounds, facts={})


def _workers() -> int:
    return len(os.sched_getaffinity(0))


@contextlib.contextmanager
def _contenders(tree: Path, *, images: int, plain: int) -> Iterator[list[Contender]]:
    out, files = tree.parent / "shards", tree.parent / "files"
    calls = -(-images // _BARE)

    def ours() -> None:
        with silence():
            build_tree(tree, out, _workers())

    with bare_calls(tree, calls, _workers()) as bare:
        ways = [
            Contender(
                name="file per image, DataLoader",
                role="baseline",
                run=lambda: plain_build(tree, files, plain, _workers()),
                amount=plain,
                prepare=lambda: _emptied(files),
            ),
            Contender(name="build-shards", role="ours", run=ours, amount=images, prepare=lambda: _emptied(out)),
            *(
                Contender(name=name, role="floor", run=functools.partial(bare, as_built), amount=calls)
                for name, as_built in (
                    ("bare decode + warp + encode", False),
                    ("the same, as the build calls them", True),
                )
            ),
        ]
        yield ways


class PlainAlignment(Dataset):
    """Aligns a face and writes it to a file of its own, as an ordinary PyTorch user does it."""

    def __init__(self, tree: Path, out: Path, images: int) -> None:
        with open(tree / "bb_landmark" / "loose_landmark_train.csv") as table:
            self._rows = list(itertools.islice(csv.reader(table), 1, images + 1))
        self._tree, self._out = tree, out
        self._template = template_points("seed", _SIZE)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> int:
        key, *numbers = self._rows[number]
        image = cv2.imread(str(self._tree / "train" / f"{key}.jpg"))
        matrix = plain_similarity(np.array(numbers, np.float64).reshape(5, 2), self._template)
        crop = cv2.warpAffine(image, matrix, (_SIZE, _SIZE), flags=cv2.INTER_CUBIC)
        path = self._out / f"{key}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), crop, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        return number


def plain_build(tree: Path, out: Path, images: int, workers: int) -> int:
    """Aligns the first images of a tree into a file per image; returns how many there are."""
    loader = DataLoader(
        PlainAlignment(tree, out, images),
        batch_size=_PLAIN_BATCH,
        num_workers=workers,
        multiprocessing_context="fork",
    )
    with plain_batches(loader) as batches:
        return sum(len(batch) for batch in batches)


def plain_similarity(landmarks: np.ndarray, template: np.ndarray) -> np.ndarray:
    """The (2, 3) source-to-crop matrix by two least-squares systems, one mirrored: template -> landmarks, inverted."""
    found = []
    for mirror in (1.0, -1.0):
        x, y = (template * (mirror, 1.0)).T
        ones, zeros = np.ones_like(x), np.zeros_like(x)
        system = np.vstack([np.column_stack([x, y, ones, zeros]), np.column_stack([y, -x, zeros, ones])])
        (a, b, dx, dy), *_ = np.linalg.lstsq(system, landmarks.T.ravel(), rcond=None)
        forward = np.array([[a, b, dx], [-b, a, dy], [0.0, 0.0, 1.0]]) @ np.diag([mirror, 1.0, 1.0])
        error = np.linalg.norm(np.column_stack([template, ones]) @ forward[:2].T - landmarks)
        found.append((error, forward))
    return np.linalg.inv(min(found, key=lambda fit: fit[0])[1])[:2]


@contextlib.contextmanager
def bare_calls(tree: Path, images: int, workers: int) -> Iterator[Callable[[bool], int]]:
    """Decodes, warps and encodes, as many as ``images``, in memory, in processes that are started already.

    Yields:
        what does the calls, as anybody writes them or as the build does, and returns how many bytes they gave.
    """
    shares = [len(range(first, images, workers)) for first in range(workers)]
    with WorkerPool(workers, functools.partial(_hold, tree)) as pool:

        def run(as_built: bool) -> int:
            return sum(pool.map(functools.partial(_bare, as_built=as_built), shares))

        run(False)
        yield run


_held: list[Any] = []  # of a worker


def _hold(tree: Path) -> None:
    cv2.setNumThreads(1)
    with open(tree / "bb_landmark" / "loose_landmark_train.csv") as table:
        rows = list(itertools.islice(csv.reader(table), 1, _FACES + 1))
    points = np.array([row[1:] for row in rows], np.float64).reshape(-1, 5, 2)
    matrices, _ = fit_similarity(points, template_points("seed", _SIZE))
    jpegs = [(tree / "train" / f"{row[0]}.jpg").read_bytes() for row in rows]
    _held[:] = list(zip(jpegs, matrices, strict=True))


def _bare(count: int, as_built: bool) -> int:
    total = 0
    for jpeg, matrix in itertools.islice(itertools.cycle(_held), count):
        if as_built:  # grey as one channel, with the black around it
            crop = warp(decode_bytes(jpeg, grey=True), matrix, _SIZE)
            if crop.ndim == 2:
                crop = cv2.cvtColor(crop, cv2.COLOR_GRAY2BGR)
        else:
            crop = cv2.warpAffine(simplejpeg.decode_jpeg(jpeg, "BGR"), matrix, (_SIZE, _SIZE), flags=cv2.INTER_CUBIC)
        total += len(cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1])
    return total
