#!/usr/bin/env python3
"""How many faces ``landmarks`` finds, how close the points are to given ones, down to which size, and how fast.

    python tools/landmark_accuracy.py /faces/VGGFace2/train --landmarks loose_landmark_train.csv

Prints two tables in Markdown. Distances are means over the five points, in fractions of the distance of the given eyes.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click
import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # this is a script of the repository, not a package

from commands.options import landmark_model
from pipeline.landmarks.chunk import Chunk, LandmarkOptions, find_in_chunk
from pipeline.landmarks.faces import find_face
from pipeline.landmarks.networks import LiteRTNetworks, Networks
from pipeline.opencv import single_thread
from pipeline.sources.folders import find_images, utf8
from pipeline.sources.images import decode
from pipeline.sources.landmark_lookup import PathLookup
from pipeline.sources.landmark_reader import read_landmarks
from pipeline.sources.watch import SourceWatch

SIZES = (32, 24, 20, 16, 12, 8)  # px, longer side of the image
ROUNDS, ROUND_IMAGES = 15, 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class GivenFace:
    """An image with given points, (5, 2) px."""

    path: str
    points: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accuracy:
    """What is found in some images: the distance to the given points for each face found, and the median eyes in px."""

    images: int
    distances: list[float]
    eyes: float

    @property
    def row(self) -> str:
        """Cells of a table: eyes, share found, median and 95th percentile of the distance."""
        found = f"{len(self.distances) / self.images:.1%}"
        if not self.distances:
            return f"{self.eyes:.1f} | {found} | - | -"
        return f"{self.eyes:.1f} | {found} | {np.median(self.distances):.1%} | {np.percentile(self.distances, 95):.1%}"


def given_faces(root: Path, tables: Sequence[Path], count: int) -> list[GivenFace]:
    """Up to ``count`` images below ``root`` with points in the tables, evenly spaced."""
    paths = find_images([root]).paths
    lookup = PathLookup(read_landmarks(tables), [utf8(path) for path in paths])
    known = [image for image in range(len(paths)) if lookup.problem(image) is None]
    faces = [GivenFace(path=paths[image], points=np.array(lookup.find(image).points)) for image in known]
    return faces[:: max(len(faces) // count, 1)][:count]


def accuracy(faces: Sequence[GivenFace], networks: Networks, side: int | None) -> Accuracy:
    """Finds the points again in the images, reduced to a longer side of ``side`` px if it is given."""
    distances, eyes = [], []
    for face in faces:
        image, points = decode(Path(face.path)), face.points
        if side is not None:
            scale = side / max(image.shape[:2])
            size = [max(round(length * scale), 1) for length in image.shape[1::-1]]
            points = points * np.divide(size, image.shape[1::-1])
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        eyes.append(float(np.linalg.norm(points[1] - points[0])))
        if found := find_face(image, networks):
            distances.append(float(np.linalg.norm(found.points - points, axis=1).mean() / eyes[-1]))
    return Accuracy(images=len(faces), distances=distances, eyes=statistics.median(eyes))


def speed(faces: Sequence[GivenFace], options: LandmarkOptions) -> Iterator[tuple[float, float]]:
    """Yields CPU seconds an image of the whole work of a worker process, and of the two networks alone, in turn.

    The inputs of the networks are those of the last image.
    """
    networks = options.networks()
    assert isinstance(networks, LiteRTNetworks)

    def networks_alone() -> None:
        for _ in range(ROUND_IMAGES):
            networks.invoke()

    watch = SourceWatch([])
    with tempfile.TemporaryDirectory() as folder:
        for number in range(ROUNDS):
            start = number * ROUND_IMAGES % max(len(faces) - ROUND_IMAGES + 1, 1)
            names = [os.path.abspath(face.path) for face in faces[start : start + ROUND_IMAGES]]
            part = Path(folder) / f"{number}.parquet"
            chunk = Chunk(root=Path("/"), names=names, part=part, options=options, watch=watch)
            whole = _cpu_seconds(functools.partial(find_in_chunk, chunk)) / len(names)
            yield whole, _cpu_seconds(networks_alone) / ROUND_IMAGES


def _cpu_seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


@click.command(help=__doc__)
@click.argument("root", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--landmarks", type=click.Path(path_type=Path), multiple=True, required=True, help="Given landmarks.")
@click.option("--model", type=click.Path(path_type=Path), help="The landmark model. [default: as for landmarks]")
@click.option("--images", type=click.IntRange(min=1), default=2000, show_default=True, help="Images tried.")
@click.option("--small", type=click.IntRange(min=1), default=500, show_default=True, help="Images tried at each size.")
def main(root: Path, landmarks: tuple[Path, ...], model: Path | None, images: int, small: int) -> None:
    options = LandmarkOptions(model=model or landmark_model())
    faces = given_faces(root, landmarks, images)
    step = max(len(faces) // small, 1)
    print("| longer side of the image, px | images | eye distance, px | found | distance, median | 95th percentile |")
    print("|---|---|---|---|---|---|")
    with single_thread():
        for side in (None, *SIZES):
            tried = faces if side is None else faces[::step]
            print(
                f"| {side or 'as it is'} | {len(tried):,} | {accuracy(tried, options.networks(), side).row} |",
                flush=True,
            )
    pairs = list(speed(faces, options))
    whole, alone = (statistics.median(times) * 1e3 for times in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"\nCPU time an image: {whole:.2f} ms, of which the networks alone {alone:.2f} ms (median ratio {ratio:.2f})")


if __name__ == "__main__":
    main()
