"""Lookup of data set files, whatever their case, Unicode normal form and image extension."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from shards.system_names import is_system_name

# what OpenCV reads by default; it looks at the content only, so .jfif is read, too
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".jp2", ".j2k"),
    *(".j2c", ".mpo"),
    *(".gif", ".avif", ".pbm", ".pgm", ".ppm", ".pnm", ".pam", ".pxm", ".pfm", ".sr", ".ras", ".hdr", ".pic"),
)
GENERATED_MARKER = "generated.json"  # demo-data writes it into every data set


def composed(name: str) -> str:
    """Returns a name in Unicode normal form C; macOS writes names in form D."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def folded(name: str) -> str:
    """Returns the form in which names that differ by case or normal form alone are equal."""
    return composed(name.lower())


def valid_text(name: str) -> str:
    r"""Returns a name as Arrow and Parquet take it: a byte that is not UTF-8 becomes ``\udcff``."""
    return name.encode("utf-8", "backslashreplace").decode()


def find_entry(folder: Path, name: str) -> Path | None:
    """Finds ``folder/name``; ``name`` may contain slashes. An exact match is preferred."""
    for part in name.split("/"):
        found = folder / part
        if not found.exists():
            entries = sorted(folder.iterdir()) if folder.is_dir() else []
            found = next((entry for entry in entries if folded(entry.name) == folded(part)), found)
        folder = found
    return folder if folder.exists() else None


def find_folder(root: Path, dataset: str, name: str) -> Path | None:
    """Finds the folder ``name`` of a data set: ``root`` itself, ``root/name`` or ``root/dataset/name``."""
    if root.name.lower() == name.lower() and root.is_dir():
        return root
    return find_entry(root, name) or find_entry(root, f"{dataset}/{name}")


def is_generated(root: Path) -> bool:
    """Returns True if ``demo-data`` wrote the data set in ``root``."""
    return (root / GENERATED_MARKER).exists()


def is_image(name: str) -> bool:
    """Returns True if a file name has an image extension, in any case, and is not a system name."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not is_system_name(name)


def names_image(path: str) -> bool:
    """Returns True if the last part of a path is the name of an image; backslashes separate, too."""
    return is_image(path.replace("\\", "/").rpartition("/")[2])


def by_preference(name: str) -> tuple[str, bool, str]:
    """Sort key of file names; ``.jpg`` comes first among names that differ only by extension."""
    stem, suffix = os.path.splitext(name)
    return stem, suffix != ".jpg", name


class Entry(NamedTuple):
    """An entry of a folder. A broken or circular link is not a folder."""

    name: str
    is_folder: bool
    is_link: bool


def scan(folder: Path) -> list[Entry]:
    """Lists the entries of a folder, unsorted."""
    with os.scandir(folder) as entries:
        return [
            Entry(entry.name, os.path.isdir(entry.path) if is_link else entry.is_dir(), is_link)
            for entry in entries
            for is_link in [entry.is_symlink()]
        ]


def same_folders(root: Path, entries: Sequence[Entry]) -> dict[str, str]:
    """Finds folders of ``root`` that are links to another one of them, or to ``root`` itself.

    Without links among ``entries`` nothing is looked up; links to folders elsewhere are not duplicates, except for all
    but the first link to the same folder.

    Returns:
        Name of each such link -> name of the folder that it leads to, or of the first link.
    """
    folders = [entry for entry in entries if entry.is_folder]
    if not any(entry.is_link for entry in folders):
        return {}
    known = {_on_disk(root): root.name or str(root)}
    same = {}
    for entry in sorted(folders, key=lambda entry: (entry.is_link, entry.name)):
        place = _on_disk(root / entry.name)
        if entry.is_link and place in known:
            same[entry.name] = known[place]
        known.setdefault(place, entry.name)
    return same


def _on_disk(folder: Path) -> tuple[int, int]:
    facts = os.stat(folder)
    return facts.st_dev, facts.st_ino
