"""The user's own gallery and probes: folders of identities."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.datasets.locate import Landmarks
from benchmarks.datasets.own_images import Preparation, check_people, own_requests
from benchmarks.datasets.resolutions import RESOLUTIONS, at_sizes
from benchmarks.errors import ProtocolError
from benchmarks.scoring.identification import IdentificationProtocol
from benchmarks.scoring.searches import Search
from pipeline.images.lookup import composed, folded, scan
from pipeline.sources.folders import find_images, report_left_out
from pipeline.sources.listing import shortened
from shards.files import StrPath, quick_digest
from shards.messages import counted, print_stderr, printable
from shards.system_names import is_system_name

RANKS = (1, 5, 10, 20)
FALSE_IDENTIFICATION_RATES = (0.3, 0.2, 0.1, 0.01)
GALLERY, PROBES, UNMATED = "gallery", "probes", "unmated"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Album:
    """The images of a folder of identities.

    Attributes:
        paths: N images.
        people: N names of the folders that they are in; empty for an image in no such folder.
    """

    paths: list[Path]
    people: list[str]


def read_identification(
    gallery: Path,
    probes: Path,
    unmated: Path | None = None,
    *,
    landmarks: Landmarks = (),
    aligned: StrPath | None = None,
    sizes: Sequence[int] = RESOLUTIONS,
    name: str = "identify",
) -> IdentificationProtocol:
    """Reads a gallery and probes: folders of identities.

    HR to LR degrades the probes, LR to LR the gallery, too. The closed set ranks all gallery images: ranks 1, 5, 10 and
    20, as far as the gallery goes, and mAP if an identity has several images. The open set, if there is ``unmated``,
    compares with the mean of each identity: TPIR at rank 1 at FPIR 30, 20, 10 and 1 %, AUC.

    Args:
        gallery: ``PERSON/image``, with any folders below a person's.
        probes: likewise; every person must be in the gallery.
        unmated: images of people who are not in the gallery, in folders of people or not.
        landmarks: see ``Preparation``.
        aligned: see ``Preparation``.
        sizes: see ``Preparation``.
        name: of the protocol, part of the names of metrics in a training run.

    Raises:
        ProtocolError: a folder is missing, holds images that are in no person's folder, or people are in the wrong folder.
        SourceError: a folder has no images, or there is no such template.
        LandmarkError: a landmark table is invalid.
    """
    how = Preparation(landmarks=landmarks, aligned=aligned, sizes=sizes)
    folders = {GALLERY: gallery, PROBES: probes, **({UNMATED: unmated} if unmated else {})}
    _check_apart(folders)
    albums = {role: _album(folder, role) for role, folder in folders.items()}
    _check_people(folders, albums)
    images = own_requests([path for album in albums.values() for path in album.paths], how)
    requests, settings = at_sizes(images, sizes, "{}@full")
    ends = np.cumsum([len(album.paths) for album in albums.values()])
    gallery_rows, probe_rows = np.arange(ends[0]), np.arange(ends[0], ends[1])
    names, gallery_ids = np.unique(albums[GALLERY].people, return_inverse=True)
    probe_ids = np.searchsorted(names, albums[PROBES].people)
    strangers = _strangers(albums[UNMATED], len(names)) if unmated else np.empty(0, np.int64)
    people, all_ids = np.concatenate([probe_ids, strangers]), np.append(probe_ids, np.full(len(strangers), -1))
    check_people(people, f"{probes} and {unmated}")
    known = (gallery_rows, gallery_ids)
    opened = _searches(settings, np.arange(ends[0], ends[-1]), all_ids, *known) if unmated else {}
    return IdentificationProtocol(
        name=name,
        title=printable(f"{probes.absolute().name} in {gallery.absolute().name}"),
        root=gallery,
        folders=[folder for folder in (probes, unmated) if folder],
        source=", ".join(f"{role} {os.path.abspath(folder)}" for role, folder in folders.items()),
        notes=_notes(albums, _copies(albums[GALLERY], albums[PROBES])),
        alignment_stated=how.stated,
        published_counts={},
        requests=requests,
        main="rank1@full",
        searches=_searches(settings, probe_rows, probe_ids, *known),
        reported=[rank for rank in RANKS if rank == 1 or rank < len(gallery_ids)],
        mean_precision=len(names) < len(gallery_ids),
        open_searches={f"open/{setting}": search for setting, search in opened.items()},
        people=people,
        rates=FALSE_IDENTIFICATION_RATES,
    )


def _searches(
    settings: dict[str, tuple[np.ndarray, np.ndarray]],
    probes: np.ndarray,
    probe_ids: np.ndarray,
    gallery: np.ndarray,
    gallery_ids: np.ndarray,
) -> dict[str, Search]:
    """A search for each setting. ``probes`` and ``gallery``: rows of the images."""
    return {
        setting: Search(probes=second[probes], probe_ids=probe_ids, gallery=first[gallery], gallery_ids=gallery_ids)
        for setting, (first, second) in settings.items()
    }


def _check_apart(folders: dict[str, Path]) -> None:
    """Raises: ProtocolError: a folder is missing, or lies in another one, so that images would find themselves."""
    for role, folder in folders.items():
        if not folder.is_dir():
            raise ProtocolError(f"{folder}: not a folder; --{role} names a folder of images, PERSON/image.jpg")
    real = {role: Path(os.path.realpath(folder)) for role, folder in folders.items()}
    for role, folder in real.items():
        for other, outer in real.items():
            if role != other and (folder == outer or outer in folder.parents):
                where = "is" if folder == outer else "lies in"
                raise ProtocolError(
                    f"--{role} {folders[role]} {where} --{other} {folders[other]}: its images would be in both; give"
                    " folders that lie beside each other"
                )


def _album(folder: Path, role: str) -> Album:
    """Lists a folder of identities; says on stderr which folders are empty."""
    found = find_images([folder])
    report_left_out(found)
    paths = [Path(path) for path in found.paths]
    parts = [path.relative_to(folder).parts for path in paths]
    people = [composed(part[0]) if len(part) > 1 else "" for part in parts]
    if role != UNMATED and (loose := [path for path, person in zip(paths, people, strict=True) if not person]):
        raise ProtocolError(
            f"{folder}: {counted(len(loose), 'image')} in no folder of a person, such as {loose[0].name}; --{role} holds a"
            " folder for each person: PERSON/image.jpg"
        )
    known = {part[0] for part in parts}
    if empty := [
        entry.name
        for entry in scan(folder)
        if entry.is_folder and not is_system_name(entry.name) and entry.name not in known
    ]:
        print_stderr(f"{folder}: {counted(len(empty), 'folder')} without an image ({shortened(sorted(empty))})")
    return Album(paths=paths, people=people)


def _check_people(folders: dict[str, Path], albums: dict[str, Album]) -> None:
    """Raises: ProtocolError: too few people in the gallery, or people in a folder where they cannot be."""
    known = set(albums[GALLERY].people)
    if len(known) < 2:
        raise ProtocolError(
            f"{folders[GALLERY]}: {counted(len(known), 'identity')}, expected two or more, a folder each: PERSON/image.jpg"
        )
    if absent := sorted(set(albums[PROBES].people) - known):
        spelled = {folded(person): person for person in known}
        twin = spelled.get(folded(absent[0]))
        raise ProtocolError(
            f"{folders[PROBES]}: {counted(len(absent), 'identity')} not in the gallery, such as {absent[0]}"
            f"{f' (the gallery has {twin})' if twin else ''}; add their folders to the gallery, or move them to the folder"
            " of --unmated, for people who are not in it"
        )
    if mated := sorted(set(albums[UNMATED].people) & known if UNMATED in albums else ()):
        raise ProtocolError(
            f"{folders[UNMATED]}: {counted(len(mated), 'identity')} in the gallery, such as {mated[0]}; move them to the"
            " folder of --probes"
        )


def _strangers(album: Album, first: int) -> np.ndarray:
    """(N,) codes of people from ``first`` on; each image in no person's folder is a person of its own."""
    names = [person or f"/{number}" for number, person in enumerate(album.people)]
    return first + np.unique(names, return_inverse=True)[1]


def _copies(gallery: Album, probes: Album) -> list[Path]:
    """Probes whose file is that of a gallery image of their person, too; others of equal size are not read."""
    known: dict[tuple[str, int], list[Path]] = {}
    for path, person in zip(gallery.paths, gallery.people, strict=True):
        known.setdefault((person, _size(path)), []).append(path)
    twins = (
        (path, known.get((person, _size(path)), [])) for path, person in zip(probes.paths, probes.people, strict=True)
    )
    return [path for path, others in twins if any(_equal(path, other) for other in others)]


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return -1


def _equal(path: Path, other: Path) -> bool:
    with contextlib.suppress(OSError):  # it is reported when it is read for the network
        return quick_digest(path) == quick_digest(other)
    return False


def _notes(albums: dict[str, Album], copies: list[Path]) -> list[str]:
    people = f"intervals: bootstrap over people, the folders of {PROBES}"
    if UNMATED in albums:
        loose = albums[UNMATED].people.count("")
        people += f" and {UNMATED}" + (
            f"; {counted(loose, 'unmated image')} in no folder: one person each" if loose else ""
        )
    found = f"{counted(len(copies), 'probe')} with a copy of the same file in the gallery, such as"
    return [people, *([f"{found} {copies[0]}"] if copies else [])]
