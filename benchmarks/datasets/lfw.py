"""LFW at low resolution, and XQLFW: pairs of aligned faces, accuracy over folds.

Source: Huang et al., Labeled faces in the wild, 2007; Knoche et al., Cross-quality LFW, 2021; the low-resolution
settings are those of Lai & Lam, ICIP 2021.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.datasets.locate import find_first, image_size, require, set_folder
from benchmarks.datasets.pairs import HEADER, Pairs, read_pairs
from benchmarks.scoring.protocols import PairProtocol
from pipeline.prepare import Request
from pipeline.sources.finder import ImageFolder, find_entry
from pipeline.sources.landmark_lookup import NameLookup
from pipeline.sources.landmark_reader import read_landmarks

RESOLUTIONS = (8, 12, 16, 20)  # px
_XQLFW_IMAGES = "lfw_original_imgs_min_qual0.85variant11"
_LFW_SIZE = (250, 250)  # px of LFW's own images, which LFW.csv refers to
_PAIRS = 6000


def read_lfw(root: Path, landmarks: Sequence[Path] = ()) -> PairProtocol:
    """LFW: image 2 degraded (HR to LR), both degraded (LR to LR), at 8, 12, 16 and 20 px; and neither, at 128.

    Args:
        root: the folder with ``lfw/``, ``pairs.txt`` and ``LFW.csv``, or the one above it.
        landmarks: tables to use instead of ``LFW.csv``.

    Raises:
        ProtocolError: a file is missing or not as the protocol has it.
    """
    images = set_folder(root, "LFW", "lfw", "LFW's images, lfw/<Name>/<Name>_0001.jpg")
    images = find_entry(images, "lfw") or images  # the root itself may be called LFW
    home = [images.parent, images, root]
    pairs = read_pairs(require(home, ["pairs.txt"], f"LFW's pair list: {HEADER}, then a line for each pair"))
    expected = "LFW's landmarks, path and 10 numbers a line"
    points = NameLookup(read_landmarks(landmarks or [_lfw_table(home, expected, [root.parent])]))
    paths, members, identities = _distinct(pairs, _Album(images))
    points.require_any(paths, "LFW")
    sizes = (None, *RESOLUTIONS)
    aligned = [_request(path, points) for path in paths]
    requests = [dataclasses.replace(request, down=down) for request in aligned for down in sizes]
    rows = {down: members * len(sizes) + index for index, down in enumerate(sizes)}
    settings = {f"{{}}@{size}": np.stack([rows[None][:, 0], rows[size][:, 1]], axis=1) for size in RESOLUTIONS}
    settings["{}@128"] = rows[None]
    settings |= {f"lr-lr/{{}}@{size}": rows[size] for size in RESOLUTIONS}
    return _protocol("lfw", "LFW", images.parent, requests, settings, pairs, identities, main="accuracy@8")


def read_xqlfw(root: Path, landmarks: Sequence[Path] = ()) -> PairProtocol:
    """XQLFW: pairs of very different quality, scored as they are.

    Args:
        root: the folder with the images and ``xqlfw_pairs.txt``, or the one above it.
        landmarks: tables of points in the XQLFW images themselves. Without them ``LFW.csv`` serves, looked for
            here and in the LFW folder beside; its points are scaled where an XQLFW image is smaller than LFW's.

    Raises:
        ProtocolError: as ``read_lfw``.
    """
    home = [root, root / "XQLFW"]
    images = set_folder(root, "XQLFW", _XQLFW_IMAGES, f"XQLFW's images, {_XQLFW_IMAGES}/<Name>/<Name>_0001.jpg")
    pairs = read_pairs(require([images.parent, *home], ["xqlfw_pairs.txt"], "XQLFW's pair list, in the form of LFW's"))
    own = [*landmarks] or [path for path in [find_first([images.parent, *home], ["XQLFW.csv"])] if path]
    places = [images.parent, *home, root.parent / "LFW", images.parent.parent / "LFW"]
    expected = "landmarks: XQLFW.csv, or LFW's LFW.csv in the LFW folder beside"
    points = NameLookup(read_landmarks(own or [_lfw_table(places, expected, [root.parent])]))
    paths, members, identities = _distinct(pairs, _Album(images))
    points.require_any(paths, "XQLFW")
    lfw = find_first([folder for folder in [*places, root.parent] if folder.name.lower() == "lfw"], ["lfw"])
    originals = _Album(lfw) if lfw else None
    requests = [_request(path, points, None if own else _original_size(path, originals)) for path in paths]
    return _protocol("xqlfw", "XQLFW", images.parent, requests, {"{}": members}, pairs, identities, main="accuracy")


def _protocol(
    name: str,
    title: str,
    root: Path,
    requests: list[Request],
    settings: dict[str, np.ndarray],
    pairs: Pairs,
    identities: np.ndarray,
    main: str,
) -> PairProtocol:
    """Requests that no setting asks for are dropped."""
    used, rows = np.unique(np.concatenate([members.ravel() for members in settings.values()]), return_inverse=True)
    split = np.split(rows.reshape(-1, 2), len(settings))
    return PairProtocol(
        name=name,
        title=title,
        root=root,
        published_counts={"pairs": _PAIRS},
        requests=[requests[row] for row in used],
        main=main,
        members=dict(zip(settings, split, strict=True)),
        identities=identities,
        genuine=pairs.genuine,
        folds=pairs.folds,
    )


class _Album:
    """Images ``<Name>/<Name>_0001.jpg``; the folder of each person is listed once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: dict[str, ImageFolder] = {}

    def find(self, person: str, image: str) -> Path:
        """Where ``image``, without its extension, of a person is, or should be."""
        if person not in self._folders:
            self._folders[person] = ImageFolder(find_entry(self._root, person) or self._root / person)
        return self._folders[person].find(f"{image}.jpg")


def _distinct(pairs: Pairs, album: _Album) -> tuple[list[Path], np.ndarray, np.ndarray]:
    """Distinct images; (N, 2) rows of them; (N, 2) codes of the people."""
    names = [f"{name}/{name}_{int(number):04d}" for name, number in pairs.names.reshape(-1, 2)]
    distinct, members = np.unique(names, return_inverse=True)
    people = np.unique(pairs.names[..., 0].ravel(), return_inverse=True)[1]
    paths = [album.find(*name.split("/")) for name in distinct.tolist()]
    return paths, members.reshape(-1, 2), people.reshape(-1, 2)


def _request(path: Path, points: NameLookup, points_size: tuple[int, int] | None = None) -> Request:
    landmarks = points.find(path)
    return Request(path=path, points=landmarks.points, points_size=points_size, place=landmarks.place)


def _lfw_table(folders: Sequence[Path], expected: str, beside: Sequence[Path]) -> Path:
    return require(folders, ["LFW.csv"], f"{expected}; or name a table with --landmarks", beside)


def _original_size(path: Path, originals: _Album | None) -> tuple[int, int]:
    """(width, height) of LFW's image of the same name, which LFW.csv's points refer to."""
    size = image_size(originals.find(path.parent.name, path.stem)) if originals else None
    return size or _LFW_SIZE
