"""SCface: closed-set identification of surveillance images at three distances against mugshots.

Source: Grgic, Delac & Grgic, SCface - surveillance cameras face database, 2011; crops as Lai & Lam, APSIPA ASC 2021.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.datasets.locate import Landmarks, find_first, image_folder, require, set_folder, tables_of
from benchmarks.errors import ProtocolError
from benchmarks.scoring.searches import ClosedSetProtocol, Search
from pipeline.images.lookup import find_entry
from pipeline.images.sizes import image_size
from pipeline.prepare import Request
from pipeline.sources.file_readers import ImageFolder
from pipeline.tables.landmark_lookup import NameLookup
from pipeline.tables.landmark_reader import is_four_point_table, read_landmarks
from pipeline.tables.landmark_table import LandmarkTable
from shards.messages import counted
from shards.system_names import is_system_name

DISTANCES, CAMERAS = (1, 2, 3), (1, 2, 3, 4, 5)
LAST_TUNING_SUBJECT = 50  # part of the literature tunes on subjects 1-50 and scores 51-130
MIN_MUGSHOT_PX = 400  # SCface's mugshots are 2048x3072 px
CROP_FACTOR = 3  # side of a probe's crop over the vertical extent of its landmarks
_DATABASE = "SCface_database"
_MUGSHOTS = "mugshot_frontal_original_all"
_FLAT, _NESTED = "surveillance_cameras_all", "surveillance_cameras_distance_{}"
_TABLES = ("scface_mugshot.csv", *(f"scface_distance{distance}.csv" for distance in DISTANCES))
_MUGSHOT_STEM = re.compile(r"(\d{3})_frontal", re.I)
_PROBE_STEM = re.compile(r"(\d{3})_cam\d_\d", re.I)


def read_scface(root: Path, landmarks: Landmarks = ()) -> ClosedSetProtocol:
    """Reads the protocol: rank-1 at each distance, for all subjects and for subjects 51-130.

    The gallery has one mugshot per subject; each distance has one probe per subject and camera.

    Args:
        root: the folder with ``SCface_database``, its parent, or ``SCface_database`` itself.
        landmarks: tables to use instead of ``scface_*.csv`` or the official four-point file, or a function that makes
            one.

    Raises:
        ProtocolError: a folder or table is missing.
        LandmarkError: a table is invalid, or has no landmarks for SCface's images.
    """
    parent = find_first([root, root / "SCface"], _DATABASE) or root
    mugshots = image_folder(set_folder(parent, "", _MUGSHOTS, f"SCface's mugshots, {_MUGSHOTS}/001_frontal.jpg"))
    database = mugshots.path.parent
    home = database.parent if database.name.lower() == _DATABASE.lower() else database
    probe_folders = {distance: _probe_folders(database, distance) for distance in DISTANCES}
    subjects = _subjects(mugshots, probe_folders)
    gallery_paths = [mugshots.find(f"{subject:03d}_frontal.jpg") for subject in subjects]
    probe_paths = {distance: _probe_paths(probe_folders[distance], distance, subjects) for distance in DISTANCES}
    paths = [*gallery_paths, *itertools.chain.from_iterable(probe_paths.values())]
    tables = tables_of(landmarks, paths)
    lookup = NameLookup(read_landmarks(tables, four_points=True) if tables else _default_table([database, home, root]))
    requests = [_request(path, lookup) for path in gallery_paths]
    gallery, evaluated = np.arange(len(subjects)), subjects > LAST_TUNING_SUBJECT
    searches = {}
    for distance in DISTANCES:
        first = len(requests)
        requests += [_request(path, lookup, is_probe=True) for path in probe_paths[distance]]
        rows, ids = np.arange(first, len(requests)), np.repeat(subjects, len(CAMERAS))
        search = Search(probes=rows, probe_ids=ids, gallery=gallery, gallery_ids=subjects)
        searches[f"{{}}@d{distance}"] = search
        if evaluated.sum() > 1:
            searches[f"{{}}@d{distance}/51-130"] = search.subset(np.repeat(evaluated, len(CAMERAS)), evaluated)
    lookup.require_any(paths, "SCface")
    size = image_size(requests[0].path)  # simulated copies have the same counts as SCface but small mugshots
    return ClosedSetProtocol(
        name="scface",
        title="SCface",
        root=home,
        published_counts={"gallery": 130, "probes": 650},
        caveat=f"mugshots of {size[0]}x{size[1]} px" if size and min(size) < MIN_MUGSHOT_PX else "",
        requests=requests,
        main="rank1@d1",
        searches=searches,
        reported=(1,),
    )


def _probe_folders(database: Path, distance: int) -> list[ImageFolder]:
    """The flat folder of all probes, or else one folder per camera."""
    if flat := find_entry(database, _FLAT):
        return [ImageFolder(flat)]
    nested = require(
        [database],
        _NESTED.format(distance),
        f"{_FLAT}/001_cam1_{distance}.jpg or {_NESTED.format(distance)}/cam_1/001_cam1_{distance}.jpg",
    )
    return [ImageFolder(find_entry(nested, f"cam_{camera}") or nested) for camera in CAMERAS]


def _probe_paths(folders: Sequence[ImageFolder], distance: int, subjects: np.ndarray) -> list[Path]:
    """The probes of each subject and camera at one distance."""
    return [
        folders[0 if len(folders) == 1 else CAMERAS.index(camera)].find(f"{subject:03d}_cam{camera}_{distance}.jpg")
        for subject, camera in itertools.product(subjects, CAMERAS)
    ]


def _subjects(mugshots: ImageFolder, probe_folders: dict[int, list[ImageFolder]]) -> np.ndarray:
    """(S,) numbers of the subjects with any mugshot or probe, so that a missing image is noticed."""
    matches = [_MUGSHOT_STEM.fullmatch(path.stem) for path in mugshots.images]
    for folder in itertools.chain.from_iterable(probe_folders.values()):
        matches += [_PROBE_STEM.fullmatch(path.stem) for path in folder.images]
    subjects = sorted({int(match[1]) for match in matches if match})
    if len(subjects) < 2:
        raise ProtocolError(
            f"{mugshots.path}: mugshots of {counted(len(subjects), 'subject')}, expected 130 (001_frontal.jpg, ...)"
        )
    return np.array(subjects)


def _default_table(folders: Sequence[Path]) -> LandmarkTable:
    """The reference's tables, or else SCface's official text file."""
    tables = [find_first(folders, name) for name in _TABLES]
    if all(tables):
        return read_landmarks([path for path in tables if path])
    for folder in folders:
        texts = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".txt" and path.is_file())
        official = [path for path in texts if not is_system_name(path.name) and is_four_point_table(path)]
        if official:
            return read_landmarks(official, four_points=True)
    missing = ", ".join(name for name, path in zip(_TABLES, tables, strict=True) if path is None)
    raise ProtocolError(
        f"{missing}: not found in {', '.join(map(str, dict.fromkeys(folders)))}; expected landmarks there, path and"
        " 10 numbers a line, or SCface's own four-point text file; or name a table with --landmarks, or find them: --landmarks auto"
    )


def _request(path: Path, lookup: NameLookup, is_probe: bool = False) -> Request:
    landmarks, side = lookup.find(path), None
    if is_probe and landmarks.points:
        y = np.array(landmarks.points)[:, 1]
        side = int(np.ptp(y) * CROP_FACTOR) if np.isfinite(y).all() else 0  # 0 is invalid
    return Request(path=path, points=landmarks.points, side=side, place=landmarks.place)
