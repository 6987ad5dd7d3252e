"""Finds data sets, shard sets and runs under a folder, by what they contain."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.images.lookup import Entry, is_image, scan
from pipeline.sources.huggingface import METADATA
from shards.schema import MANIFEST, PLAN
from shards.system_names import is_system_name

MAX_FOLDERS = 500  # sub-folders to look into; a folder with more holds no data sets
DEPTH = 2
MAX_PEOPLE = 10_000_000
MAX_TRIED = 3  # sub-folders that tell a folder of identities
_PERSON = re.compile(r"n\d{6}", re.I)
# kind -> names, in lower case, any of which identifies it; the first match counts
_MARKERS = {
    "shard set": (MANIFEST, PLAN),
    "run": ("metrics.jsonl",),
    "xqlfw": ("xqlfw_pairs.txt", "lfw_original_imgs_min_qual0.85variant11"),
    "lfw": ("pairs.txt", "lfw"),
    "scface": ("scface_database", "mugshot_frontal_original_all"),
    "qmul": ("face_verification_test_set", "face_identification_test_set"),
    "tinyface": ("testing_set",),
    "recordio": ("train.rec",),
    "vggface2": ("bb_landmark",),
    "folder": ("landmarks.csv",),
    "huggingface": METADATA,
}


def find_layouts(root: Path, depth: int = DEPTH) -> Iterator[tuple[str, Path]]:
    """Yields kind and folder of what ``root`` is or contains, each once. Folders that cannot be listed are left out.

    Args:
        depth: levels of folders below ``root`` to look into.
    """
    found: set[str] = set()
    for kind, folder in _layouts(root, depth):
        place = os.path.realpath(folder)
        if place not in found:
            found.add(place)
            yield kind, folder


def _layouts(root: Path, depth: int) -> Iterator[tuple[str, Path]]:
    """As ``find_layouts``; a folder that links lead to is yielded for each of them."""
    kind = layout_of(root)
    if kind:
        yield kind, root
    if depth and kind in (None, "lfw"):
        for folder in _folders(root):
            if kind is None:
                yield from _layouts(folder, depth - 1)
            elif folder.name.lower() != "lfw":  # LFW's images may lie beside other data sets
                yield from (found for found in _layouts(folder, depth - 1) if found[0] != "folder")


def layout_of(folder: Path) -> str | None:
    """The kind of a folder; None if it is unknown or cannot be listed."""
    try:
        return _layout(folder)
    except OSError:
        return None


def _layout(folder: Path) -> str | None:
    entries = {entry.name.lower(): entry for entry in scan(folder)}
    for kind, names in _MARKERS.items():
        found = next((name for name in names if name in entries), None)
        if found is None or (found == "lfw" and not _holds_people(folder / entries["lfw"].name)):
            continue
        return kind
    if "train" in entries and any(_PERSON.fullmatch(entry.name) for entry in scan(folder / entries["train"].name)):
        return "vggface2"
    if _holds_tars(entries.values()):
        return "webdataset"
    return "folder" if _holds_identities(folder) else None


def _holds_tars(entries: Iterable[Entry]) -> bool:
    """True for tars without folders beside them; a folder of downloads has both."""
    kept = [entry for entry in entries if not is_system_name(entry.name)]
    return any(entry.name.lower().endswith(".tar") for entry in kept) and not any(entry.is_folder for entry in kept)


def _holds_identities(folder: Path) -> bool:
    """True if the first few sub-folders hold images, and are not image folders of Hugging Face."""
    tried = [os.listdir(one) for one in _folders(folder, MAX_PEOPLE)[:MAX_TRIED]]
    return bool(tried) and all(any(map(is_image, names)) and not {*METADATA} & {*names} for names in tried)


def _holds_people(folder: Path) -> bool:
    """True for LFW's images; False for a folder with the whole data set or for it, which may be called lfw, too."""
    return bool(_folders(folder, MAX_PEOPLE)) and not {"lfw", "pairs.txt"} & {
        name.lower() for name in os.listdir(folder)
    }


def _folders(root: Path, most: int = MAX_FOLDERS) -> list[Path]:
    """The sub-folders, sorted, links last; none if there are more than ``most``."""
    try:
        folders = [entry for entry in scan(root) if entry.is_folder and not is_system_name(entry.name)]
    except OSError:
        return []
    folders.sort(key=lambda entry: (entry.is_link, entry.name))
    return [root / entry.name for entry in folders] if len(folders) <= most else []
