"""SCface: surveillance images at three distances against mugshots, rank-1.

Source: Grgic, Delac & Grgic, SCface - surveillance cameras face database, 2011; crops as Lai & Lam, ICIP 2021.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.datasets.locate import find_first, image_size, require, set_folder
from benchmarks.errors import ProtocolError
from benchmarks.scoring.protocols import ClosedSetProtocol, Search
from pipeline.prepare import Request
from pipeline.sources.finder import ImageFolder, find_entry
from pipeline.sources.landmark_lookup import NameLookup
from pipeline.sources.landmark_reader import has_four_points, read_landmarks
from pipeline.sources.landmarks import Point

DISTANCES, CAMERAS = (1, 2, 3), (1, 2, 3, 4, 5)
TUNING_SUBJECTS = 50  # 1-50 are kept for tuning by part of the literature, which scores 51-130
_LEAST_MUGSHOT = 400  # px
_CROP_FACTOR = 3  # side of a probe's crop over the height that its landmarks span
_DATABASE = "SCface_database"
_MUGSHOTS = "mugshot_frontal_original_all"
_FLAT, _NESTED = "surveillance_cameras_all", "surveillance_cameras_distance_{}"
_TABLES = ("scface_mugshot.csv", *(f"scface_distance{distance}.csv" for distance in DISTANCES))
_MUGSHOT_NAME = re.compile(r"(\d{3})_frontal", re.I)
_PROBE_NAME = re.compile(r"(\d{3})_cam\d_\d", re.I)


def read_scface(root: Path, landmarks: Sequence[Path] = ()) -> ClosedSetProtocol:
    """One mugshot of each subject as the gallery, five cameras at each distance as probes.

    Rank-1 is given over all subjects, and over subjects 51-130 against their own mugshots.

    Args:
        root: the folder with ``SCface_database``, that folder itself, or the one above.
        landmarks: tables to use instead of ``scface_*.csv`` or the official four-point file.

    Raises:
        ProtocolError: a folder or table is missing, or a table holds none of the images.
    """
    inside = find_first([root, root / "SCface"], [_DATABASE]) or root
    mugshots = ImageFolder(set_folder(inside, "", _MUGSHOTS, f"SCface's mugshots, {_MUGSHOTS}/001_frontal.jpg"))
    database = mugshots.path.parent
    home = database.parent if database.name.lower() == _DATABASE.lower() else database
    probes = {distance: _probe_folders(database, distance) for distance in DISTANCES}
    subjects = _subjects(mugshots, probes)
    points = NameLookup(read_landmarks(landmarks, four_points=True)) if landmarks else _points([database, home, root])
    requests = [_request(mugshots.find(f"{subject:03d}_frontal.jpg"), points) for subject in subjects]
    gallery = np.arange(len(subjects))
    searches = {}
    for distance in DISTANCES:
        first = len(requests)
        for subject in subjects:
            for camera in CAMERAS:
                path = _probe(probes[distance], f"{subject:03d}_cam{camera}_{distance}.jpg", camera)
                requests.append(_request(path, points, cropped=True))
        rows, ids = np.arange(first, len(requests)), np.repeat(subjects, len(CAMERAS))
        every = Search(probes=rows, probe_ids=ids, gallery=gallery, gallery_ids=subjects)
        searches[f"{{}}@d{distance}"] = every
        if (subjects > TUNING_SUBJECTS).sum() > 1:
            searches[f"{{}}@d{distance}/51-130"] = _tested(every)
    points.require_any([request.path for request in requests], "SCface")
    return ClosedSetProtocol(
        name="scface",
        title="SCface",
        root=home,
        published_counts={"gallery": 130, "probes": 650},
        caveat=_caveat(requests[0].path),
        requests=requests,
        main="rank1@d1",
        searches=searches,
        reported=(1,),
    )


def _caveat(mugshot: Path) -> str:
    """SCface's mugshots are 2048x3072 px; simulated sets have the same counts."""
    size = image_size(mugshot)
    return f"mugshots of {size[0]}x{size[1]} px" if size and min(size) < _LEAST_MUGSHOT else ""


def _tested(search: Search) -> Search:
    probes, gallery = search.probe_ids > TUNING_SUBJECTS, search.gallery_ids > TUNING_SUBJECTS
    return Search(
        probes=search.probes[probes],
        probe_ids=search.probe_ids[probes],
        gallery=search.gallery[gallery],
        gallery_ids=search.gallery_ids[gallery],
    )


def _probe_folders(database: Path, distance: int) -> list[ImageFolder]:
    """One flat folder, or one for each camera: whichever is there."""
    if flat := find_entry(database, _FLAT):
        return [ImageFolder(flat)]
    nested = require(
        [database],
        [_NESTED.format(distance)],
        f"{_FLAT}/ with 001_cam1_{distance}.jpg, or {_NESTED.format(distance)}/cam_1/ with them",
    )
    return [ImageFolder(find_entry(nested, f"cam_{camera}") or nested) for camera in CAMERAS]


def _probe(folders: list[ImageFolder], name: str, camera: int) -> Path:
    return folders[0 if len(folders) == 1 else CAMERAS.index(camera)].find(name)


def _subjects(mugshots: ImageFolder, probes: dict[int, list[ImageFolder]]) -> np.ndarray:
    """(S,) subject numbers that any image is of, so that a lost image is missed."""
    named = [_MUGSHOT_NAME.fullmatch(path.stem) for path in mugshots.images]
    named += [
        _PROBE_NAME.fullmatch(path.stem) for folders in probes.values() for folder in folders for path in folder.images
    ]
    subjects = sorted({int(match[1]) for match in named if match})
    if len(subjects) < 2:
        raise ProtocolError(
            f"{mugshots.path}: mugshots of {len(subjects)} subjects, expected 130 (001_frontal.jpg, ...)"
        )
    return np.array(subjects)


def _points(folders: Sequence[Path]) -> NameLookup:
    """The tables of the reference, or else the official text file."""
    found = [find_first(folders, [name]) for name in _TABLES]
    if all(found):
        return NameLookup(read_landmarks([path for path in found if path]))
    for folder in folders:
        texts = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".txt" and path.is_file())
        official = [path for path in texts if has_four_points(path)]
        if official:
            return NameLookup(read_landmarks(official, four_points=True))
    missing = ", ".join(name for name, path in zip(_TABLES, found, strict=True) if path is None)
    raise ProtocolError(
        f"{missing}: not found in {', '.join(map(str, dict.fromkeys(folders)))}; expected landmarks there, path and"
        " 10 numbers a line, or SCface's own four-point text file; or name a table with --landmarks"
    )


def _request(path: Path, points: NameLookup, cropped: bool = False) -> Request:
    known = points.find(path)
    side = _crop_side(known.points) if cropped and known.points else None
    return Request(path=path, points=known.points, side=side, place=known.place)


def _crop_side(points: tuple[Point, ...]) -> int:
    """px; 0 where the points are not numbers, which no crop has."""
    heights = np.array(points)[:, 1]
    return int((heights.max() - heights.min()) * _CROP_FACTOR) if np.isfinite(heights).all() else 0
