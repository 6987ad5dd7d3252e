"""The faces that stages are timed on: a user's data sets, or generated ones; and copies of them of any size and number."""

from __future__ import annotations

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
from pipeline.sources.catalog import VGGFACE2
from pipeline.sources.finder import ImageTree, find_entry
from pipeline.sources.images import ImageError, decode
from pipeline.sources.landmark_reader import read_landmarks
from pipeline.sources.landmarks import HEADER, LandmarkError
from shards.errors import LrfrError
from shards.index import ShardIndex

_MANY, _FEW = (128, 4), (16, 3)  # generated people, as many as a batch of the reference has, and images of each
_EXCERPT, _QUICK_EXCERPT = 50_000, 2000  # images, of VGGFace2 about as many people as that and some more
_QUALITY = 95
_REMEDY = "--root names the folder with VGGFace2 in it; without --root faces are generated"
PER_IDENTITY = 100  # images of an identity of a made tree
_WARM = np.array([[0.78], [0.9], [1.0]])  # of blue, green and red: a grey face in the light of a lamp


class RootError(LrfrError):
    """A folder of data sets without a face to time anything on. One line."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Face:
    """A (H, W, 3) uint8 BGR image and its (5, 2) landmarks, px."""

    image: np.ndarray
    points: np.ndarray


def data_root(root: Path | None, scratch: Path, *, quick: bool) -> Path:
    """The user's folder of data sets, or one of generated faces in ``scratch``, painted when it is first asked for."""
    if root is None:
        people, images = _FEW if quick else _MANY
        write_demo_data(scratch / "generated", identities=people, images=images, seed=0, layouts=["VGGFace2", "LFW"])
    return root or scratch / "generated"


def read_faces(root: Path, count: int) -> list[Face]:
    """The first ``count`` faces of ``root/VGGFace2`` that can be decoded and aligned; fewer, but not none, if it has fewer.

    Raises:
        RootError: it has none, or no landmarks that can be read.
    """
    folder, rows = _faces_of(root)
    faces: list[Face] = []
    wrong = ""
    for key, points in rows:
        try:
            faces.append(_read_face(folder, key, points))
        except ImageError as error:
            wrong = wrong or f"{key}: {error}"
        if len(faces) == count:
            break
    if not faces:
        raise RootError(f"{folder}: none of its faces can be used, the first is {wrong}; {_REMEDY}")
    return faces


def _faces_of(root: Path) -> tuple[Path, Iterator[tuple[str, np.ndarray]]]:
    """The folder of VGGFace2 in ``root``, and key and (5, 2) landmarks of its faces."""
    folder = find_entry(root, VGGFACE2.dataset) or root / VGGFACE2.dataset
    try:
        files = VGGFACE2.landmark_files(folder)
    except LandmarkError:
        raise RootError(f"{folder}: no such folder with bb_landmark/loose_landmark_train.csv; {_REMEDY}") from None
    try:
        table = read_landmarks(files)
    except LandmarkError as error:
        raise RootError(f"{error}; {_REMEDY}") from None
    return folder, zip((key.as_py() for key in table.keys), table.points.reshape(-1, 5, 2), strict=True)


def _read_face(folder: Path, key: str, points: np.ndarray) -> Face:
    """Raises: ImageError: it cannot be used."""
    path = ImageTree(folder, VGGFACE2.splits).find(key)
    if path is None:
        raise ImageError("no image")
    if not fit_similarity(points[None], template_points("seed", 128))[1].all():
        raise ImageError("landmarks that cannot be aligned")
    return Face(image=decode(path), points=points)


def resized(face: Face, width: int, height: int) -> Face:
    """The face in a photograph of this size: as wide as it is, mirrored at top and bottom or cut to its height."""
    scale = width / face.image.shape[1]
    tall = max(round(face.image.shape[0] * scale), 1)
    image = cv2.resize(face.image, (width, tall), interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    above = (height - tall) // 2
    if above >= 0:
        image = cv2.copyMakeBorder(image, above, height - tall - above, 0, 0, cv2.BORDER_REFLECT_101)
    else:
        image = image[-above : -above + height]
    return Face(image=np.ascontiguousarray(image), points=face.points * scale + (0, above))


def write_vggface2(faces: Sequence[Face], folder: Path, *, images: int, grey: bool, linked: bool = False) -> Path:
    """Lays out ``images`` files as VGGFace2, repeating the faces as often as needed; returns ``folder``.

    Args:
        grey: JPEGs of one component; otherwise of three, with colours that a grey face is given if it has none.
        linked: faces that are repeated are hard links, written in a moment and without room of their own.
    """
    encoded = [_encoded(face.image, grey) for face in faces]
    written: dict[int, Path] = {}
    rows: list[tuple[str, np.ndarray]] = []
    for number, which in zip(range(images), itertools.cycle(range(len(faces))), strict=False):
        identity, image = divmod(number, PER_IDENTITY)
        key = f"n{identity:06d}/{image:04d}_01"
        path = folder / "train" / f"{key}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if linked and number >= len(faces):
            os.link(written[which], path)
        else:
            path.write_bytes(encoded[which])
            written[which] = path
        rows.append((key, faces[which].points))
    (folder / "bb_landmark").mkdir()
    _write_landmarks(rows, folder / "bb_landmark" / "loose_landmark_train.csv")
    return folder


def _write_landmarks(rows: Iterable[tuple[str, np.ndarray]], path: Path) -> None:
    with open(path, "w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(HEADER)
        table.writerows([key, *(f"{value:.2f}" for value in points.ravel())] for key, points in rows)


def _encoded(image: np.ndarray, grey: bool) -> bytes:
    if grey:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    elif (image == image[..., :1]).all():
        image = (image * _WARM[:, 0]).astype(np.uint8)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()


def build_tree(tree: Path, out: Path, workers: int, landmarks: tuple[Path, ...] = ()) -> ShardIndex:
    """Builds the shards of a folder in VGGFace2's layout, with its own landmarks unless others are given."""
    build(options_for("vggface2", root=tree, landmarks=landmarks, template=None, out=out, workers=workers))
    return ShardIndex(out)


def build_excerpt(root: Path, out: Path, workers: int, *, quick: bool) -> ShardIndex:
    """Builds the shards of the first faces of ``root/VGGFace2`` that have an image, at most 50,000; of few if quick.

    Raises:
        RootError: it has no landmarks that can be read.
    """
    folder, rows = _faces_of(root)
    tree = ImageTree(folder, VGGFACE2.splits)
    there = ((key, points) for key, points in rows if tree.find(key))
    out.mkdir(parents=True)
    landmarks = out / "landmarks.csv"
    _write_landmarks(itertools.islice(there, _QUICK_EXCERPT if quick else _EXCERPT), landmarks)
    return build_tree(folder, out / "shards", workers, (landmarks,))
