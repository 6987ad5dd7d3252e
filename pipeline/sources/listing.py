"""Image lists of sources without landmarks."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.images.lookup import Entry, by_preference, is_image, same_folders, scan, valid_text
from pipeline.sources.file_readers import ListedImages
from pipeline.sources.source import Rows, SourceError
from shards.messages import counted
from shards.system_names import is_system_name

NAMED = 3  # entries named in a message


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageList:
    """The images of a folder, sorted."""

    keys: pa.StringArray  # (N,) ``identity/image``, without extension; bytes that are not UTF-8 as ``\\udcff``
    names: pa.BinaryArray  # (N,) file names, ``identity/image.jpg``
    others: list[str]  # (M,) entries that are neither an image nor a folder of images

    @property
    def digest(self) -> str:
        """SHA-256 of the names, so that a resumed build can check that the files are the same."""
        value = hashlib.sha256()
        for name in self.names:
            value.update(name.as_py() + b"\0")
        return value.hexdigest()

    def duplicate_of(self, row: int) -> str:
        """Describes a later row with the same key as ``row``."""
        name = valid_text(os.fsdecode(self.names[row].as_py()))
        return f"differs from {name} by its extension {'' if name.isascii() else 'or Unicode form '}alone"


def list_images(root: Path, listed: Mapping[str, list[Entry]] | None = None) -> ImageList:
    """Lists ``root/identity/image``, and images directly in ``root``, which the plan rejects with a reason.

    A link to another identity's folder, or to ``root``, would double its images: it is an entry of ``others``.

    Args:
        listed: the entries of ``""``, the root, and of the folders in it, if it is not a folder of this machine.

    Raises:
        SourceError: there is no image.
        OSError: a folder cannot be read.
    """
    names: list[str] = []
    entries = _sorted(scan(root) if listed is None else listed[""])
    same = same_folders(root, [entry for entry in entries if not is_system_name(entry.name)])
    others = [f"{link} (the same folder as {folder})" for link, folder in same.items()]  # first, because they matter
    for name, is_folder, _ in entries:
        if not is_folder or is_system_name(name):
            (names if is_image(name) else others).append(name)
        elif name not in same:
            for inner, is_inner_folder, _ in _sorted(scan(root / name) if listed is None else listed[name]):
                wanted = is_image(inner) and not is_inner_folder
                (names if wanted else others).append(f"{name}/{inner}")
    if not names:
        found = (
            f" among {counted(len(others), 'entry')} ({shortened([valid_text(other) for other in others])})"
            if others
            else ""
        )
        raise SourceError(f"{root}: no images found{found}; expected <ID>/<image>.jpg")
    keys = pc.replace_substring_regex(pa.array(map(valid_text, names), pa.string()), r"\.[^.]*$", "")
    files = pa.array(map(os.fsencode, names), pa.binary())
    return ImageList(keys=keys, names=files, others=[valid_text(other) for other in others])


def listed_rows(root: Path, listed: Mapping[str, list[Entry]] | None = None) -> Rows:
    """Returns the images of a folder as the rows of a source, see ``list_images``."""
    images = list_images(root, listed)
    return Rows(
        keys=images.keys,
        reader=ListedImages(root),
        parts={"files under --root": images.digest},
        places=images.names,
        others=images.others,
        duplicate_of=images.duplicate_of,
    )


def shortened(names: Sequence[str]) -> str:
    """Joins the first few names."""
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def _sorted(entries: list[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: by_preference(entry.name))
