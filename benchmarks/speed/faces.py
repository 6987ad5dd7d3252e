"""Faces for timing, from a user's data sets or generated, and copies of them in any size and number."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from pipeline.align import fit_similarity, template_points
from pipeline.build import build, options_for
from pipeline.demo.generate import write_demo_data
from pipeline.images.decode import ImageError, decode
from pipeline.images.lookup import find_entry
from pipeline.sources.file_readers import ImageTree
from pipeline.sources.source import SourceError
from pipeline.sources.vggface2 import VGGFace2
from pipeline.tables.landmark_reader import read_landmarks
from pipeline.tables.landmark_table import HEADER, LandmarkError
from shards.index import ShardIndex

CROP_SIZE, JPEG_QUALITY = 128, 95  # px; of stored crops
IMAGES_PER_IDENTITY = 100  # in a tree of ``write_tree``
_DEMO, _QUICK_DEMO = (128, 4), (16, 3)  # generated identities, images of each
_EXCERPT_IMAGES, _QUICK_EXCERPT_IMAGES = 50_000, 2000
_TABLE = "bb_landmark/loose_landmark_train.csv"
_REMEDY = "--root names the folder with VGGFace2 in it; without --root faces are generated"
_TINT = np.array([0.78, 0.9, 1.0])  # of blue, green and red: gives colour to a grey face


@dataclasses.dataclass(frozen=True)
class Face:
    """An image and its landmarks."""

    image: np.ndarray  # (H, W, 3) uint8 BGR
    points: np.ndarray  # (5, 2) px


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
    """Settings that all stages share."""

    root: Path | None  # folder of data sets to take faces from; None for generated faces
    scratch: Path  # folder for everything that a stage writes
    rounds: int  # timed calls of each contender
    quick: bool  # do little work; the times are rough

    def data_sets(self) -> Path:
        """The folder of data sets. Generates faces when they are first needed."""
        if self.root is not None:
            return self.root
        (identities, images), folder = _QUICK_DEMO if self.quick else _DEMO, self.scratch / "generated"
        write_demo_data(folder, identities=identities, images=images, seed=0, layouts=["VGGFace2", "LFW"])
        return folder


def read_faces(root: Path, count: int) -> list[Face]:
    """Reads the first ``count`` faces of ``root/VGGFace2`` that can be decoded and aligned. Raises: SourceError: none can."""
    faces: list[Face] = []
    for path, _, points in _images(root):
        with contextlib.suppress(ImageError):
            if fit_similarity(points[None], template_points("seed", CROP_SIZE))[1].all():
                faces.append(Face(decode(path), points))
        if len(faces) == count:
            break
    if not faces:
        raise SourceError(f"{_folder(root)}: no image can be decoded and aligned; {_REMEDY}")
    return faces


def _folder(root: Path) -> Path:
    return find_entry(root, VGGFace2.dataset) or root / VGGFace2.dataset


def _images(root: Path) -> Iterator[tuple[Path, str, np.ndarray]]:
    """Path, key and (5, 2) landmarks of the images of ``root/VGGFace2``."""
    folder = _folder(root)
    if not (folder / _TABLE).parent.is_dir():
        raise SourceError(f"{folder}: no such folder with {_TABLE}; {_REMEDY}")
    try:
        table = read_landmarks(VGGFace2().landmark_files(folder))
    except LandmarkError as error:
        raise SourceError(f"{error}; {_REMEDY}") from None
    tree = ImageTree(folder, VGGFace2.splits)
    for key, points in zip(table.keys, table.points.reshape(-1, 5, 2), strict=True):
        if path := tree.find(key.as_py()):
            yield path, key.as_py(), points


def resized(face: Face, width: int, height: int) -> Face:
    """Scales a face to ``width`` px, and mirrors it at top and bottom, or crops it, to ``height`` px."""
    scale = width / face.image.shape[1]
    above = (height - round(face.image.shape[0] * scale)) // 2
    matrix, options = np.array([[scale, 0, 0], [0, scale, above]]), {"borderMode": cv2.BORDER_REFLECT_101}
    image = cv2.warpAffine(face.image, matrix, (width, height), flags=cv2.INTER_CUBIC, **options)
    return Face(image, face.points * scale + (0, above))


def write_tree(faces: Sequence[Face], folder: Path, *, images: int, grey: bool) -> Path:
    """Writes ``images`` files in the layout of VGGFace2, repeated faces as hard links; returns ``folder``.

    Args:
        grey: write JPEGs with one channel; otherwise with three, and tint grey faces.
    """
    rows: list[tuple[str, np.ndarray]] = []
    for number in range(images):
        identity, image = divmod(number, IMAGES_PER_IDENTITY)
        face, key = faces[number % len(faces)], f"n{identity:06d}/{image:04d}_01"
        path = folder / "train" / f"{key}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number < len(faces):
            path.write_bytes(_encode(face.image, grey))
        else:
            os.link(folder / "train" / f"{rows[number % len(faces)][0]}.jpg", path)
        rows.append((key, face.points))
    _write_table(rows, folder / _TABLE)
    return folder


def _encode(image: np.ndarray, grey: bool) -> bytes:
    if grey:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    elif (image == image[..., :1]).all():
        image = (image * _TINT).astype(np.uint8)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


def _write_table(rows: Iterable[tuple[str, np.ndarray]], path: Path) -> None:
    path.parent.mkdir(parents=True)
    with open(path, "w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(HEADER)
        table.writerows([key, *(f"{value:.2f}" for value in points.ravel())] for key, points in rows)


def read_tree(tree: Path, count: int) -> list[tuple[Path, np.ndarray]]:
    """The first ``count`` files of a tree that ``write_tree`` wrote, each with its (5, 2) float64 landmarks."""
    with open(tree / _TABLE) as stream:
        rows = list(itertools.islice(csv.reader(stream), 1, count + 1))
    return [(tree / "train" / f"{key}.jpg", np.array(points, np.float64).reshape(5, 2)) for key, *points in rows]


def build_tree(tree: Path, out: Path, workers: int, landmarks: tuple[Path, ...] = ()) -> ShardIndex:
    """Builds the shards of a folder in the layout of VGGFace2; ``landmarks`` replaces its landmark table."""
    build(options_for("vggface2", root=tree, landmarks=landmarks, template=None, out=out, workers=workers))
    return ShardIndex(out)


def build_excerpt(setup: Setup, out: Path, workers: int) -> ShardIndex:
    """Builds the shards of the first 50,000 images of VGGFace2, or 2,000 in a quick run. Raises: SourceError."""
    root, count = setup.data_sets(), _QUICK_EXCERPT_IMAGES if setup.quick else _EXCERPT_IMAGES
    _write_table(((key, points) for _, key, points in itertools.islice(_images(root), count)), out / "landmarks.csv")
    return build_tree(_folder(root), out / "shards", workers, (out / "landmarks.csv",))
