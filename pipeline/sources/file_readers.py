"""Readers of images that are files below a folder."""

from __future__ import annotations

import errno
import functools
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.images.decode import read_regular
from pipeline.images.lookup import by_preference, composed, folded, is_image, scan, valid_text
from pipeline.sources.source import Reader
from shards.system_names import is_system_name

CACHED_FOLDERS = 64
# errors of a path that leads to no file: EINVAL stands for pipes and devices, ENXIO for sockets
_ABSENT = (*(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.ENAMETOOLONG, errno.EINVAL),)


class ImageFolder:
    """The images directly in one folder, listed once. An absent folder has no images.

    Attributes:
        path: the folder.
        hidden: names of its hidden and system entries, which are not images.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        entries = scan(path) if path.is_dir() else []
        names = sorted(entry.name for entry in entries if is_image(entry.name) and not entry.is_folder)
        preferred = sorted(names, key=by_preference)
        self._names = names
        self.hidden = sorted(entry.name for entry in entries if is_system_name(entry.name))
        self._by_name = _by_spelling((name, name) for name in names)
        self._by_stem = _by_spelling((os.path.splitext(name)[0], name) for name in preferred)

    @property
    def images(self) -> list[Path]:
        """Paths of all images, sorted by name."""
        return [self.path / name for name in self._names]

    def find(self, name: str) -> Path:
        """Finds an image by file name, or by stem if only its extension differs.

        Returns:
            The path; ``path / name`` if there is no such image.
        """
        found = _spelled(self._by_name, name)
        if found:
            return self.path / found
        return self.find_stem(os.path.splitext(name)[0] if is_image(name) else name) or self.path / name

    def find_stem(self, stem: str) -> Path | None:
        """Finds an image by its name without extension; an exact match is preferred, then one in the same case."""
        found = _spelled(self._by_stem, stem)
        return self.path / found if found else None


_SPELLINGS: tuple[Callable[[str], str], ...] = (str, valid_text, composed, folded)  # from exact to tolerant


def _by_spelling(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Maps each spelling of a key to its first name; exact keys have precedence over composed and lower-case ones."""
    pairs = list(pairs)
    found: dict[str, str] = {}
    for spelling in _SPELLINGS:
        for key, name in pairs:
            found.setdefault(spelling(key), name)
    return found


def _spelled(names: dict[str, str], key: str) -> str | None:
    return next(filter(None, (names.get(spelling(key)) for spelling in _SPELLINGS)), None)


class ImageTree(Reader):
    """The images ``split/identity/image`` below a root. Caches folder listings: files must not change meanwhile.

    Keys have no extension. To open each file at once, the tree remembers the extensions that it has met, and lists a
    folder only for an image that has none of them.
    """

    def __init__(self, root: Path, splits: Sequence[str] = ("",)) -> None:
        """
        Args:
            splits: sub-folders to search, in order; ``""`` is the root itself.
        """
        self._root, self._splits = root, tuple(splits)
        self._bases = [base for base in (os.path.join(root, split) for split in splits) if os.path.isdir(base)]
        self._suffixes: list[str] = []  # extensions met so far, in order of preference
        self._images = functools.lru_cache(maxsize=CACHED_FOLDERS)(ImageFolder)
        self._identities = functools.cache(_composed_names)

    def __reduce__(self) -> tuple[Any, ...]:
        return ImageTree, (self._root, self._splits)  # without its caches

    def find(self, key: str) -> Path | None:
        """Finds the file of ``identity/image`` with any image extension; None if it is absent."""
        return next((Path(path) for path in self._candidates(key) if os.path.isfile(path)), None)

    def read(self, place: str, max_bytes: int | None = None) -> bytes:
        """Returns the file content of the key ``place``, see ``Reader.read``."""
        for path in self._candidates(place):
            if (data := _read_if_present(path, max_bytes)) is not None:
                return data
        named = ", ".join(filter(None, self._splits))
        raise FileNotFoundError(f"no image {place} under {self._root}" + (f" ({named})" if named else ""))

    def _candidates(self, key: str) -> Iterator[str]:
        """Yields the paths that may be the image of a key, from the likeliest to those that need a listing."""
        spellings = _normal_forms(key)
        for suffix in self._suffixes:
            for base in self._bases:
                for spelling in spellings:
                    yield f"{base}/{spelling}{suffix}"
        identity, _, stem = key.rpartition("/")
        for base in self._bases:
            found = self._images(Path(self._identity_folder(base, identity))).find_stem(stem)
            if found:
                self._suffixes = sorted({*self._suffixes, found.suffix}, key=lambda suffix: (suffix != ".jpg", suffix))
                yield str(found)

    def _identity_folder(self, base: str, identity: str) -> str:
        path = os.path.join(base, identity)
        if (identity.isascii() and "\\udc" not in identity) or os.path.isdir(path):
            return path
        return os.path.join(base, self._identities(base).get(composed(identity), identity))


class ListedImages(Reader):
    """The images of a list, which are read by file name."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, place: bytes, max_bytes: int | None = None) -> bytes:
        """Returns the content of a file; ``place`` is its path below the root, see ``Reader.read``."""
        data = _read_if_present(os.path.join(os.fsencode(self._root), place), max_bytes)
        if data is None and not place.isascii():  # a list of another system may have another normal form
            spellings = _normal_forms(os.fsdecode(place))[1:]
            found = (_read_if_present(os.path.join(self._root, spelling), max_bytes) for spelling in spellings)
            data = next((one for one in found if one is not None), None)
        if data is None:
            key = valid_text(os.fsdecode(os.path.splitext(place)[0]))
            raise FileNotFoundError(f"no image {key} under {self._root}")
        return data


def _read_if_present(path: str | bytes, max_bytes: int | None) -> bytes | None:
    """Returns the content of a file; None if there is no file. Opening it is the only way to know in one call."""
    try:
        return read_regular(os.fsdecode(path), max_bytes)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise


def _normal_forms(key: str) -> tuple[str, ...]:
    """Returns a key as it is, then in the Unicode normal forms that file systems use."""
    return (key,) if key.isascii() else tuple(dict.fromkeys([key, composed(key), unicodedata.normalize("NFD", key)]))


def _composed_names(folder: str) -> dict[str, str]:
    """Maps names of keys, in normal form C, to the entries of a folder.

    Their case counts: two identities may differ by it alone.
    """
    return {composed(valid_text(name)): name for name in sorted(os.listdir(folder))}
