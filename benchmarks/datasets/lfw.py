"""LFW at low resolution, and XQLFW: verification of aligned pairs.

Source: Huang et al., Labeled faces in the wild, 2007; Knoche et al., Cross-quality LFW, 2021; the low-resolution
settings are those of Lai & Lam, APSIPA ASC 2021.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.datasets.locate import Landmarks, find_first, require, set_folder, tables_of
from benchmarks.datasets.pairs import HEADER, Pairs, read_pairs
from benchmarks.datasets.resolutions import at_resolutions
from benchmarks.scoring.protocols import PairProtocol
from pipeline.images.lookup import find_entry
from pipeline.images.sizes import image_size
from pipeline.prepare import Request
from pipeline.sources.file_readers import ImageFolder
from pipeline.tables.landmark_lookup import NameLookup
from pipeline.tables.landmark_reader import read_landmarks

PUBLISHED_PAIRS = 6000
_XQLFW_IMAGES = "lfw_original_imgs_min_qual0.85variant11"
_LFW_SIZE = (250, 250)  # px of LFW's images, to which the points in LFW.csv refer


def read_lfw(root: Path, landmarks: Landmarks = ()) -> PairProtocol:
    """Reads LFW.

    At 8, 12, 16 and 20 px, HR to LR degrades the second image of a pair, LR to LR both. At 128 px none is degraded.

    Args:
        root: the folder with ``lfw/``, ``pairs.txt`` and ``LFW.csv``, or its parent.
        landmarks: tables to use instead of ``LFW.csv``, or a function that makes one.

    Raises:
        ProtocolError: a file is missing or invalid.
        LandmarkError: a table is invalid, or has no landmarks for LFW's images.
    """
    images = set_folder(root, "LFW", "lfw", "LFW's images, lfw/<Name>/<Name>_0001.jpg")
    images = find_entry(images, "lfw") or images  # root itself may be called LFW
    folders = [images.parent, images, root]
    pairs = read_pairs(require(folders, "pairs.txt", f"LFW's pair list: {HEADER}, then one line a pair"))
    expected = "LFW's landmarks, path and 10 numbers a line"
    paths, members = _distinct_images(pairs, images)
    tables = tables_of(landmarks, paths) or [_lfw_table(folders, expected, [root.parent])]
    lookup = NameLookup(read_landmarks(tables))
    lookup.require_any(paths, "LFW")
    requests, settings = at_resolutions([_request(path, lookup) for path in paths], members, "{}@128")
    return _protocol("lfw", "LFW", images.parent, requests, settings, pairs, main="accuracy@8")


def read_xqlfw(root: Path, landmarks: Landmarks = ()) -> PairProtocol:
    """Reads XQLFW: pairs of images of very different quality, which are not degraded.

    Args:
        root: the folder with the images and ``xqlfw_pairs.txt``, or its parent.
        landmarks: tables of points in the XQLFW images, or a function that makes one. By default ``XQLFW.csv``, or else
            ``LFW.csv`` from ``root`` or from the LFW folder next to it; the points of ``LFW.csv`` are scaled to XQLFW
            images of another size.

    Raises:
        ProtocolError: a file is missing or invalid.
        LandmarkError: a table is invalid, or has no landmarks for XQLFW's images.
    """
    folders = [root, root / "XQLFW"]
    images = set_folder(root, "XQLFW", _XQLFW_IMAGES, f"XQLFW's images, {_XQLFW_IMAGES}/<Name>/<Name>_0001.jpg")
    pairs = read_pairs(require([images.parent, *folders], "xqlfw_pairs.txt", "XQLFW's pair list, in LFW's format"))
    xqlfw_table = find_first([images.parent, *folders], "XQLFW.csv")
    paths, members = _distinct_images(pairs, images)
    tables = tables_of(landmarks, paths) or ([xqlfw_table] if xqlfw_table else [])
    lfw_folders = [images.parent, *folders, root.parent / "LFW", images.parent.parent / "LFW"]
    expected = "landmarks: XQLFW.csv, or LFW's LFW.csv in the LFW folder next to it"
    lookup = NameLookup(read_landmarks(tables or [_lfw_table(lfw_folders, expected, [root.parent])]))
    lookup.require_any(paths, "XQLFW")
    lfw = find_first([folder for folder in [*lfw_folders, root.parent] if folder.name.lower() == "lfw"], "lfw")
    originals = _people(lfw) if lfw else None
    requests = [_request(path, lookup, None if tables else _original_size(path, originals)) for path in paths]
    return _protocol("xqlfw", "XQLFW", images.parent, requests, {"{}": members}, pairs, main="accuracy")


def _protocol(
    name: str,
    title: str,
    root: Path,
    requests: list[Request],
    settings: dict[str, np.ndarray],
    pairs: Pairs,
    main: str,
) -> PairProtocol:
    """The protocol with the requests that a setting uses."""
    used, rows = np.unique(np.concatenate([members.ravel() for members in settings.values()]), return_inverse=True)
    members = np.split(rows.reshape(-1, 2), len(settings))
    return PairProtocol(
        name=name,
        title=title,
        root=root,
        published_counts={"pairs": PUBLISHED_PAIRS},
        requests=[requests[row] for row in used],
        main=main,
        members=dict(zip(settings, members, strict=True)),
        identities=np.unique(pairs.names[..., 0].ravel(), return_inverse=True)[1].reshape(-1, 2),
        genuine=pairs.genuine,
        folds=pairs.folds,
    )


def _people(root: Path) -> Callable[[str], ImageFolder]:
    """Person -> folder of the person's images, ``<Name>/<Name>_0001.jpg``; lists each folder once."""
    return functools.cache(lambda person: ImageFolder(find_entry(root, person) or root / person))


def _distinct_images(pairs: Pairs, root: Path) -> tuple[list[Path], np.ndarray]:
    """Paths of the distinct images, and the (N, 2) indices of each pair in them."""
    names = [f"{name}/{name}_{int(number):04d}.jpg" for name, number in pairs.names.reshape(-1, 2)]
    distinct, members = np.unique(names, return_inverse=True)
    people = _people(root)
    paths = [people(person).find(name) for person, name in (path.split("/") for path in distinct.tolist())]
    return paths, members.reshape(-1, 2)


def _request(path: Path, lookup: NameLookup, points_size: tuple[int, int] | None = None) -> Request:
    landmarks = lookup.find(path)
    return Request(path=path, points=landmarks.points, points_size=points_size, place=landmarks.place)


def _lfw_table(folders: Sequence[Path], expected: str, fallbacks: Sequence[Path]) -> Path:
    return require(
        folders, "LFW.csv", f"{expected}; or name a table with --landmarks, or find them: --landmarks auto", fallbacks
    )


def _original_size(path: Path, originals: Callable[[str], ImageFolder] | None) -> tuple[int, int]:
    """(width, height) of the LFW image of the same name, to which the points in LFW.csv refer."""
    size = image_size(originals(path.parent.name).find(f"{path.stem}.jpg")) if originals else None
    return size or _LFW_SIZE
