"""LFW at low resolution, and XQLFW: pairs of aligned faces, accuracy over folds.

Source: Huang et al., Labeled faces in the wild, 2007; Knoche et al., Cross-quality LFW, 2021; the low-resolution
settings are those of Lai & Lam, ICIP 2021.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.errors import ProtocolError
from benchmarks.layout import find_first, require, set_folder
from benchmarks.points import read_points
from benchmarks.prepare import Request
from benchmarks.protocols import PairProtocol
from pipeline.folders import find_entry

RESOLUTIONS = (8, 12, 16, 20)  # px
_XQLFW_IMAGES = "lfw_original_imgs_min_qual0.85variant11"
_LFW_SIZE = (250, 250)  # px of LFW's own images, which LFW.csv refers to
_PAIRS = 6000
_HEADER = "folds and pairs a fold, such as 10<TAB>300"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pairs:
    """A pairs file.

    Attributes:
        names: (N, 2, 2) person and image number, both as text, of the two images of each pair.
        genuine: (N,) bool.  folds: (N,) int.
    """

    names: np.ndarray
    genuine: np.ndarray
    folds: np.ndarray


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
    pairs = read_pairs(require(home, ["pairs.txt"], f"LFW's pair list: {_HEADER}, then a line for each pair"))
    points = read_points(landmarks or [_lfw_table([*home, root.parent], "LFW's landmarks, path and 10 numbers a line")])
    paths, members, identities = _distinct(pairs, images)
    points_of = [points.of(path) for path in paths]
    sizes = (None, *RESOLUTIONS)
    requests = [
        Request(path=path, points=its, down=down) for path, its in zip(paths, points_of, strict=True) for down in sizes
    ]
    rows = {down: members * len(sizes) + index for index, down in enumerate(sizes)}
    settings = {f"{{}}@{size}": np.stack([rows[None][:, 0], rows[size][:, 1]], axis=1) for size in RESOLUTIONS}
    settings["{}@128"] = rows[None]
    settings |= {f"lr-lr/{{}}@{size}": rows[size] for size in RESOLUTIONS}
    return _protocol("lfw", "LFW", root, requests, settings, pairs, identities, main="accuracy@8")


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
    beside = [images.parent, *home, root.parent, root.parent / "LFW", images.parent.parent / "LFW"]
    points = read_points(own or [_lfw_table(beside, "landmarks: XQLFW.csv, or LFW's LFW.csv in the LFW folder beside")])
    paths, members, identities = _distinct(pairs, images)
    originals = find_first([folder for folder in beside if folder.name.lower() == "lfw"], ["lfw"])
    requests = [
        Request(path=path, points=points.of(path), points_size=None if own else _original_size(path, originals))
        for path in paths
    ]
    return _protocol("xqlfw", "XQLFW", root, requests, {"{}": members}, pairs, identities, main="accuracy")


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
        published={"pairs": _PAIRS},
        requests=[requests[row] for row in used],
        main=main,
        members=dict(zip(settings, split, strict=True)),
        identities=identities,
        genuine=pairs.genuine,
        folds=pairs.folds,
    )


def read_pairs(path: Path) -> Pairs:
    """Reads a pairs file: a header with the number of folds and of pairs of a kind in each, then, fold after fold,
    genuine pairs (name, i, j) and impostor pairs (name, i, name, j), parted by tabs.

    Raises:
        ProtocolError: the header, a line or the number of lines is not so; the message names the line.
    """
    try:
        lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ProtocolError(f"{path}: cannot be read as text ({error}); restore it from the archive") from None
    header = "\t".join(lines[0]).split() if lines else []
    if len(header) != 2 or not all(word.isdigit() for word in header) or int(header[0]) < 2 or int(header[1]) < 1:
        raise ProtocolError(f"{path}: line 1: found {' '.join(header)[:60]!r}, expected {_HEADER}; at least 2 folds")
    folds, each = map(int, header)
    if len(lines) - 1 != 2 * folds * each:
        raise ProtocolError(
            f"{path}: {len(lines) - 1:,} pairs, but line 1 states {folds} folds of {each} genuine and {each} impostor"
            f" pairs, {2 * folds * each:,} in all"
        )
    number = np.arange(2 * folds * each)
    genuine = number % (2 * each) < each
    names = [
        _pair(fields, bool(kind), path, line)
        for line, (fields, kind) in enumerate(zip(lines[1:], genuine, strict=True), 2)
    ]
    return Pairs(names=np.array(names), genuine=genuine, folds=number // (2 * each))


def _pair(fields: list[str], genuine: bool, path: Path, line: int) -> list[list[str]]:
    fields = [field.strip() for field in fields]
    if genuine and len(fields) == 3:
        fields = [fields[0], fields[1], fields[0], fields[2]]
    elif genuine or len(fields) != 4:
        kind = "a genuine pair (name, i, j)" if genuine else "an impostor pair (name, i, name, j)"
        raise ProtocolError(f"{path}: line {line}: {len(fields)} fields, expected {kind}, parted by tabs")
    if not (fields[1].isdigit() and fields[3].isdigit()):
        raise ProtocolError(
            f"{path}: line {line}: image numbers are {fields[1]!r} and {fields[3]!r}, expected whole numbers"
        )
    return [fields[:2], fields[2:]]


def _distinct(pairs: Pairs, images: Path) -> tuple[list[Path], np.ndarray, np.ndarray]:
    """Distinct images; (N, 2) rows of them; (N, 2) codes of the people."""
    names = [f"{name}/{name}_{int(number):04d}" for name, number in pairs.names.reshape(-1, 2)]
    distinct, members = np.unique(names, return_inverse=True)
    people = np.unique(pairs.names[..., 0].ravel(), return_inverse=True)[1]
    paths = [find_first([images], [f"{name}.jpg", f"{name}.png"]) or images / f"{name}.jpg" for name in distinct]
    return paths, members.reshape(-1, 2), people.reshape(-1, 2)


def _lfw_table(folders: Sequence[Path], expected: str) -> Path:
    return require(list(folders), ["LFW.csv"], f"{expected}; or name a table with --landmarks")


def _original_size(path: Path, originals: Path | None) -> tuple[int, int]:
    """(width, height) of LFW's image of the same name, which LFW.csv's points refer to."""
    original = find_first([originals], [f"{path.parent.name}/{path.name}"]) if originals else None
    if original is None:
        return _LFW_SIZE
    try:
        with Image.open(original) as image:
            return image.size
    except OSError:
        return _LFW_SIZE
