#!/usr/bin/env python3
"""Measures how many faces ``landmarks`` finds, how accurate the points are, down to which size, and how fast it is.

    python tools/landmark_accuracy.py /faces/VGGFace2/train --landmarks loose_landmark_train.csv

Prints a table in Markdown: the images as they are, reduced, and as small faces on a smooth background in a large photograph.
Distances are means over the five points, in fractions of the distance of the given eyes.
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
from pipeline.images.decode import decode
from pipeline.landmarks.chunk import Chunk, LandmarkOptions, find_in_chunk
from pipeline.landmarks.faces import find_face
from pipeline.landmarks.networks import LiteRTNetworks, Networks
from pipeline.opencv import single_thread
from pipeline.sources.folders import find_images, utf8
from pipeline.sources.watch import SourceWatch
from pipeline.tables.landmark_lookup import PathLookup
from pipeline.tables.landmark_reader import read_landmarks

SIZES = (32, 24, 20, 16, 12, 8)  # px, longer side of the image
SHARES = (0.5, 0.25, 0.1, 0.05, 0.03)  # of the width of a photograph
PHOTOGRAPH = (1500, 1000)  # px
MAX_PHOTOGRAPHS = 100
ROUNDS, ROUND_IMAGES = 15, 128


# image, (5, 2) points -> changed image and points
Change = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


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
        found = f"{len(self.distances):,} ({len(self.distances) / self.images:.1%})"
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


def as_it_is(image: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The image and its points."""
    return image, points


def reduced(image: np.ndarray, points: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The image with a longer side of ``side`` px, and its points."""
    scale = side / max(image.shape[:2])
    size = [max(round(length * scale), 1) for length in image.shape[1::-1]]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), points * np.divide(size, image.shape[1::-1])


def in_photograph(image: np.ndarray, points: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """A smooth ground of ``PHOTOGRAPH`` px with the image on it, which takes a share of its width."""
    width, height = PHOTOGRAPH
    rng = np.random.default_rng(image.ravel()[:64])  # another place for each image
    ground = rng.integers(60, 180, (height // 100, width // 100, 3), dtype=np.uint8)
    photograph = cv2.resize(ground, PHOTOGRAPH, interpolation=cv2.INTER_CUBIC)
    small, points = reduced(image, points, round(share * width))
    x, y = (int(rng.integers(0, whole - side)) for whole, side in zip(PHOTOGRAPH, small.shape[1::-1], strict=True))
    photograph[y : y + small.shape[0], x : x + small.shape[1]] = small
    return photograph, points + (x, y)


def accuracy(faces: Sequence[GivenFace], networks: Networks, change: Change = as_it_is) -> Accuracy:
    """Finds the points again in the images, changed before that."""
    distances, eyes = [], []
    for face in faces:
        image, points = change(decode(Path(face.path)), face.points)
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
    some, few = faces[:: max(len(faces) // small, 1)], faces[:: max(len(faces) // MAX_PHOTOGRAPHS, 1)]
    rows = [("as it is", faces, as_it_is)]
    rows += [(f"{side} px", some, functools.partial(reduced, side=side)) for side in SIZES]
    rows += [
        (f"{share:.0%} of {PHOTOGRAPH[0]} px", few, functools.partial(in_photograph, share=share)) for share in SHARES
    ]
    print("| longer side of the image | images | eye distance, px | found | distance, median | 95th percentile |")
    print("|---|---|---|---|---|---|")
    with single_thread:
        for label, tried, change in rows:
            print(f"| {label} | {len(tried):,} | {accuracy(tried, options.networks(), change).row} |", flush=True)
    pairs = list(speed(faces, options))
    whole, alone = (statistics.median(times) * 1e3 for times in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"\nCPU time an image: {whole:.2f} ms, of which the networks alone {alone:.2f} ms (median ratio {ratio:.2f})")


if __name__ == "__main__":
    main()
