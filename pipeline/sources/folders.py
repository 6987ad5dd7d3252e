"""Lists the images below folders, whatever their layout."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.images.lookup import is_image
from pipeline.sources.listing import shortened
from pipeline.sources.source import SourceError
from shards.messages import counted, print_stderr
from shards.system_names import is_system_name


@dataclasses.dataclass
class FoundImages:
    """Image files, and what was left out.

    Attributes:
        paths: the images, each path once.
        others: hidden and system entries of the folders, which are not searched.
        doubles: folders that links led to again, and images that were given again.
    """

    paths: list[str]
    others: list[str]
    doubles: list[str]


def find_images(paths: Sequence[Path]) -> FoundImages:
    """Lists image files: given files in their order, and all images below given folders, sorted.

    Raises:
        SourceError: there are no images.
    """
    found: dict[str, None] = {}
    others: list[str] = []
    doubles: list[str] = []
    for path in paths:
        for image in _images_below(path, others, doubles) if path.is_dir() else [str(path)]:
            if image in found:
                doubles.append(image)
            found[image] = None
    if not found:
        raise SourceError(f"{', '.join(map(str, paths))}: contains no images; expected .jpg, .png, .tif, ...")
    return FoundImages(paths=list(found), others=others, doubles=doubles)


def report_left_out(found: FoundImages) -> None:
    """Prints what was left out to stderr."""
    for left_out, noun in ((found.others, "hidden or system entry"), (found.doubles, "repeated path")):
        if left_out:
            print_stderr(f"ignored {counted(len(left_out), noun)} ({shortened(left_out)})")


def _images_below(root: Path, others: list[str], doubles: list[str]) -> Iterator[str]:
    """Follows links to folders, but visits each folder once. Adds to ``others`` and ``doubles``."""
    visited = set()
    for folder, folders, names in os.walk(root, onerror=_raise, followlinks=True):
        facts = os.stat(folder)
        if (facts.st_dev, facts.st_ino) in visited:
            doubles.append(folder)
            folders.clear()
            continue
        visited.add((facts.st_dev, facts.st_ino))
        others += [os.path.join(folder, name) for name in sorted(folders) if is_system_name(name)]
        folders[:] = sorted(name for name in folders if not is_system_name(name))
        for name in sorted(names):
            path = os.path.join(folder, name)
            if is_image(name):
                yield path
            elif is_system_name(name):
                others.append(path)


def _raise(error: OSError) -> None:
    raise error


def utf8(path: str) -> str:
    r"""Returns a path as text for a table: bytes that are not UTF-8 become ``\xNN``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
