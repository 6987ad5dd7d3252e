"""Locates the folders and files of a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from benchmarks.errors import AbsentError, ProtocolError
from pipeline.images.lookup import find_entry, find_folder
from pipeline.sources.file_readers import ImageFolder
from pipeline.sources.listing import shortened
from shards.messages import command, counted, print_stderr

# Landmark tables, or a function that makes the table of some images.
Landmarks = Sequence[Path] | Callable[[Sequence[Path]], Path]


def tables_of(landmarks: Landmarks, paths: Sequence[Path]) -> list[Path]:
    """Returns the landmark tables to use for the images ``paths``; empty for the data set's own."""
    return [landmarks(paths)] if callable(landmarks) else list(landmarks)


def set_folder(root: Path, dataset: str, name: str, expected: str) -> Path:
    """Finds the folder ``name`` of a data set: ``root/name``, ``root/dataset/name`` or ``root`` itself.

    Args:
        expected: description of the folder, for the message.

    Raises:
        AbsentError: there is no such folder.
    """
    found = find_folder(root, dataset, name)
    if found is None:
        problem = f"no {name} in it" if root.is_dir() or not root.exists() else "not a folder"
        remedy = f"name its folder, or run: {command('demo-data')}"
        raise AbsentError(f"{root}: {problem}; expected {expected} ({remedy})")
    return found


def image_folder(path: Path) -> ImageFolder:
    """Lists the images of a folder; prints which hidden and system entries are left out."""
    folder = ImageFolder(path)
    if hidden := folder.hidden:
        print_stderr(f"{path}: ignored {counted(len(hidden), 'hidden or system entry')} ({shortened(hidden)})")
    return folder


def find_first(folders: Iterable[Path], name: str) -> Path | None:
    """Finds ``name`` in the first folder that has it."""
    found = (find_entry(folder, name) for folder in folders)
    return next((path for path in found if path), None)


def require(folders: Sequence[Path], name: str, expected: str, fallbacks: Sequence[Path] = ()) -> Path:
    """Like ``find_first``, but a missing file is an error.

    Args:
        expected: description of the file, for the message.
        fallbacks: more folders to search. The message does not name them, because nobody should put the file there.

    Raises:
        ProtocolError: no folder has ``name``.
    """
    found = find_first([*folders, *fallbacks], name)
    if found is None:
        searched = ", ".join(dict.fromkeys(map(str, folders)))
        raise ProtocolError(f"{name}: not found in {searched}; expected {expected}")
    return found
