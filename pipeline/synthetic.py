"""demo-data: generated faces in the layouts of the public data sets, the embedded default data."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import scipy.io

from pipeline.executors import unordered_map
from pipeline.faces import sample_identity, sample_shot
from pipeline.landmarks import HEADER
from pipeline.painter import paint
from pipeline.progress import Progress

GENERATED_MARKER = "generated.json"  # tells generated data from a user's own
_TEST_SPLIT = 8  # every eighth training identity lies in VGGFace2's test folder
_FIRST_TEST_PERSON = 1_000_000  # people of the benchmarks are never people of the training set
_LEAST_PAIRS = 20  # of a kind: the protocol has ten folds
_SURVEILLANCE_EYES = (5.0, 12.0)  # px between the eyes


class DemoDataError(Exception):
    """Generated faces cannot be put where they should go. One line."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """How many faces to paint. The same options give the same bytes."""

    identities: int
    images: int
    seed: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Person:
    """Work for one process: all images of one person. ``names``: files without extension, under ``folder``."""

    folder: Path
    person: int
    names: list[str]
    seed: int
    surveillance: bool


def write_demo_data(out: Path, *, identities: int, images: int, seed: int) -> None:
    """Writes ``VGGFace2`` and ``QMUL-SurvFace`` under ``out``; what is there already with the same options is kept.

    Raises:
        DemoDataError: a data set of that name is there and is not this one.
    """
    options = DemoOptions(identities=identities, images=images, seed=seed)
    for name, write in _LAYOUTS.items():
        _write_whole(out / name, options, write)


def _write_whole(folder: Path, options: DemoOptions, write: Callable[[Path, DemoOptions], None]) -> None:
    marker = json.dumps(dataclasses.asdict(options), sort_keys=True) + "\n"
    if folder.exists():
        found = (folder / GENERATED_MARKER).read_text() if (folder / GENERATED_MARKER).exists() else None
        if found == marker:
            return
        what = "generated with other options" if found else "not generated data"
        raise DemoDataError(f"{folder}: exists and is {what}; choose another --out, or delete it")
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write(partial, options)
    (partial / GENERATED_MARKER).write_text(marker)
    os.replace(partial, folder)


def _write_vggface2(folder: Path, options: DemoOptions) -> None:
    people = []
    for person in range(options.identities):
        split = "test" if person % _TEST_SPLIT == _TEST_SPLIT - 1 else "train"
        names = [f"n{person + 1:06d}/{image + 1:04d}_01" for image in range(options.images)]
        people.append(_Person(folder=folder / split, person=person, names=names, seed=options.seed, surveillance=False))
    landmarks = _paint_all(people, "demo-data VGGFace2")
    (folder / "bb_landmark").mkdir()
    for split in ("train", "test"):
        rows = [
            row
            for person in people
            if person.folder.name == split
            for row in _csv_rows(person.names, landmarks[person.person])
        ]
        (folder / "bb_landmark" / f"loose_landmark_{split}.csv").write_text("\n".join([",".join(HEADER), *rows]) + "\n")


def _csv_rows(names: list[str], landmarks: np.ndarray) -> Iterator[str]:
    for name, points in zip(names, landmarks, strict=True):
        yield f'"{name}",' + ",".join(f"{value:.3f}" for value in points.ravel())


def _write_qmul(folder: Path, options: DemoOptions) -> None:
    test_set = folder / "Face_Verification_Test_Set"
    people = []
    for index in range(max(options.identities // 2, 2)):
        names = [f"{index + 1}_cam{image % 3 + 1}_{image + 1}" for image in range(options.images)]
        images = test_set / "verification_images"
        people.append(
            _Person(folder=images, person=_FIRST_TEST_PERSON + index, names=names, seed=options.seed, surveillance=True)
        )
    _paint_all(people, "demo-data QMUL-SurvFace")
    rng = np.random.default_rng([options.seed, 1])
    each = max(options.images, -(-_LEAST_PAIRS // len(people)))
    genuine = [rng.choice(person.names, 2, replace=False) for person in people for _ in range(each)]
    impostors = []
    for _ in genuine:
        first, second = rng.choice(len(people), 2, replace=False)
        impostors.append((rng.choice(people[first].names), rng.choice(people[second].names)))
    for kind, pairs in (("positive", np.array(genuine)), ("negative", np.array(impostors))):
        cells = np.empty(pairs.shape, object)
        cells[:] = np.char.add(pairs, ".jpg")
        _savemat(test_set / f"{kind}_pairs_names.mat", f"{kind}_pairs_names", cells)


def _savemat(path: Path, name: str, cells: np.ndarray) -> None:
    scipy.io.savemat(path, {name: cells})
    with open(path, "r+b") as stream:  # its header text states the time; the same seed shall give the same bytes
        stream.write(b"MATLAB 5.0 MAT-file, generated faces".ljust(116))


def _paint_all(people: list[_Person], label: str) -> dict[int, np.ndarray]:
    """Paints everybody; returns (images, 5, 2) landmarks by person."""
    with Progress(label, sum(len(person.names) for person in people)) as progress:
        landmarks = {}
        done = unordered_map(_paint_person, people, executor="process", workers=len(os.sched_getaffinity(0)))
        with contextlib.closing(done):
            for person, points in done:
                landmarks[person] = points
                progress.update(len(points))
    return landmarks


def _paint_person(task: _Person) -> tuple[int, np.ndarray]:
    cv2.setNumThreads(1)
    who = sample_identity(np.random.default_rng([task.seed, task.person]))
    landmarks = []
    for image, name in enumerate(task.names):
        rng = np.random.default_rng([task.seed, task.person, image])
        width = int(rng.integers(120, 180))
        pixels, points = paint(who, sample_shot(rng), width=width, height=int(width * rng.uniform(1.1, 1.4)), rng=rng)
        if task.surveillance:
            pixels = _surveillance_crop(pixels, points, rng)
        path = task.folder / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes())
        landmarks.append(points)
    return task.person, np.stack(landmarks)


def _surveillance_crop(pixels: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The face as a detector on a distant camera returns it: a tight crop, a few pixels between the eyes."""
    middle, unit = points.mean(0), max(float(np.linalg.norm(points[1] - points[0])), 8.0)
    low = np.maximum(middle - np.multiply(unit, (1.15, 1.5)), 0).astype(int)
    high = (middle + np.multiply(unit, (1.15, 1.35))).astype(int)
    crop = pixels[low[1] : high[1], low[0] : high[0]]
    scale = rng.uniform(*_SURVEILLANCE_EYES) / unit
    return cv2.resize(crop, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


_LAYOUTS: dict[str, Callable[[Path, DemoOptions], None]] = {"VGGFace2": _write_vggface2, "QMUL-SurvFace": _write_qmul}
