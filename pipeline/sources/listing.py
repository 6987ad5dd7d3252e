"""Image lists: what lies in a folder of identities, for sources that have no landmarks."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.sources.landmarks import IMAGE_SUFFIXES
from shards.errors import LrfrError


class SourceError(LrfrError):
    """A source that is not there, or is asked for what it does not have. One line."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageList:
    """The images of a folder, sorted; stands where a ``LandmarkTable`` stands for sources that have one.

    Attributes:
        keys: (N,) ``identity/image``, without extension.
        names: (N,) the files, ``identity/image.jpg``.
        others: (M,) what else lies there: neither an image nor a folder of images.
        points, problems: there are none.
    """

    keys: pa.StringArray
    names: pa.StringArray
    others: list[str]
    points: ClassVar[None] = None
    problems: ClassVar[dict[int, str]] = {}

    @property
    def digest(self) -> str:
        """SHA-256 of the names: a restart must find the same files."""
        value = hashlib.sha256()
        for name in self.names:
            value.update(name.as_py().encode() + b"\0")
        return value.hexdigest()

    def repeats(self, row: int) -> str:
        """What is wrong with a later row of the same key."""
        return f"differs from {self.names[row]} by its extension alone"


def list_images(root: Path) -> ImageList:
    """Lists ``root/identity/image``; an image that lies in ``root`` itself is listed, too, and will be a row with a reason.

    Raises:
        SourceError: there is no image.
        OSError: a folder cannot be read.
    """
    names: list[str] = []
    others: list[str] = []
    for name, is_folder in _entries(root):
        if not is_folder:
            (names if is_image(name) else others).append(_text(name))
            continue
        for inner, is_inner_folder in _entries(root / name):
            wanted = is_image(inner) and not is_inner_folder
            (names if wanted else others).append(_text(f"{name}/{inner}"))
    if not names:
        raise SourceError(f"{root}: no image in it; expected <ID>/<image>.jpg")
    files = pa.array(names, pa.string())
    return ImageList(keys=pc.replace_substring_regex(files, r"\.[^.]*$", ""), names=files, others=others)


def is_image(name: str) -> bool:
    """True for a file name with the extension of an image, whatever its case."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def by_preference(name: str) -> tuple[str, bool, str]:
    """Sorts file names; of those that differ by their extension alone, ``.jpg`` is the first."""
    stem, suffix = os.path.splitext(name)
    return stem, suffix != ".jpg", name


def _entries(folder: Path) -> Iterator[tuple[str, bool]]:
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir()) for entry in entries]
    yield from sorted(found, key=lambda pair: by_preference(pair[0]))


def _text(name: str) -> str:
    """A name as text; bytes that are not UTF-8 become ``\\udcff``, and the plan refuses a key with a backslash."""
    return name.encode("utf-8", "backslashreplace").decode()
