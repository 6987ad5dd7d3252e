"""Case-insensitive lookup of data set files."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.sources.images import read_regular

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
GENERATED_MARKER = "generated.json"  # demo-data writes it into every data set
CACHED_FOLDERS = 64


def find_entry(folder: Path, name: str) -> Path | None:
    """Finds ``folder/name``; ``name`` may contain slashes. An exact match is preferred."""
    for part in name.split("/"):
        found = folder / part
        if not found.exists():
            entries = sorted(folder.iterdir()) if folder.is_dir() else []
            found = next((entry for entry in entries if entry.name.lower() == part.lower()), found)
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
    """Returns True if a file name has an image extension, in any case."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def by_preference(name: str) -> tuple[str, bool, str]:
    """Sort key of file names; ``.jpg`` comes first among names that differ only by extension."""
    stem, suffix = os.path.splitext(name)
    return stem, suffix != ".jpg", name


def scan(folder: Path) -> list[tuple[str, bool]]:
    """Lists the entries of a folder, unsorted, as (name, is a folder). A broken or circular link is not a folder."""
    with os.scandir(folder) as entries:
        return [(entry.name, os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()) for entry in entries]


class ImageFolder:
    """The images directly in one folder, listed once. An absent folder has no images."""

    def __init__(self, path: Path) -> None:
        self.path = path
        entries = scan(path) if path.is_dir() else []
        names = sorted(name for name, is_folder in entries if is_image(name) and not is_folder)
        preferred = sorted(names, key=by_preference)
        self._names = names
        self._by_name = _case_insensitive((name, name) for name in names)
        self._by_stem = _case_insensitive((os.path.splitext(name)[0], name) for name in preferred)

    @property
    def images(self) -> list[Path]:
        """Paths of all images, sorted by name."""
        return [self.path / name for name in self._names]

    def find(self, name: str) -> Path:
        """Finds an image by file name, or by stem if only its extension differs.

        Returns:
            The path; ``path / name`` if there is no such image.
        """
        found = self._by_name.get(name) or self._by_name.get(name.lower())
        if found:
            return self.path / found
        return self.find_stem(os.path.splitext(name)[0] if is_image(name) else name) or self.path / name

    def find_stem(self, stem: str) -> Path | None:
        """Finds an image by its name without extension; an exact match is preferred."""
        found = self._by_stem.get(stem) or self._by_stem.get(stem.lower())
        return self.path / found if found else None


def _case_insensitive(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Maps each key to its first name. Lower-case keys are added unless they exist."""
    pairs = list(pairs)
    found: dict[str, str] = {}
    for key, name in [*pairs, *((key.lower(), name) for key, name in pairs)]:
        found.setdefault(key, name)
    return found


class ImageTree:
    """The images ``split/identity/image`` below a root. Caches folder listings: files must not change meanwhile."""

    def __init__(self, root: Path, splits: Sequence[str] = ("",)) -> None:
        """
        Args:
            splits: sub-folders to search, in order; ``""`` is the root itself.
        """
        self._root, self._splits = root, splits
        self._folder = functools.lru_cache(maxsize=CACHED_FOLDERS)(ImageFolder)

    def find(self, key: str) -> Path | None:
        """Finds the file of ``identity/image`` with any image extension; None if it is absent."""
        for split in self._splits:  # nearly every image is key.jpg: try that before any lookup
            path = os.path.join(self._root, split, f"{key}.jpg")
            if os.path.isfile(path):
                return Path(path)
        identity, _, stem = key.rpartition("/")
        for split in self._splits:
            found = self._folder(self._root / split / identity).find_stem(stem)
            if found and found.is_file():
                return found
        return None

    def read(self, key: str, max_bytes: int | None = None) -> bytes:
        """Returns the file content of ``identity/image``.

        Raises:
            FileNotFoundError: no split has such an image.
            OSError: the file cannot be read.
            ImageError: the file has more than ``max_bytes``.
        """
        path = self.find(key)
        if path is None:
            named = ", ".join(filter(None, self._splits))
            raise FileNotFoundError(f"no image {key} under {self._root}" + (f" ({named})" if named else ""))
        return read_regular(path, max_bytes)
