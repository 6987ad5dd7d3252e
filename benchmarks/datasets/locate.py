"""Finds and reads what a data set consists of: files whatever the case of their names, sizes of images."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from benchmarks.errors import AbsentError, ProtocolError
from pipeline.sources.finder import find_entry, find_folder


def set_folder(root: Path, dataset: str, name: str, expected: str) -> Path:
    """The folder ``name`` of a data set, in ``root``, in ``root/dataset``, or ``root`` itself.

    Raises:
        AbsentError: it is nowhere; the message says what was ``expected``.
    """
    found = find_folder(root, dataset, name)
    if found is None:
        what = f"no {name} in it" if root.is_dir() or not root.exists() else "not a folder"
        raise AbsentError(f"{root}: {what}; expected {expected} (name its folder, or run: python cli.py demo-data)")
    return found


def find_first(folders: Iterable[Path], names: Sequence[str]) -> Path | None:
    """The first of ``names`` that the first of ``folders`` has."""
    found = (find_entry(folder, name) for folder in folders for name in names)
    return next((path for path in found if path), None)


def require(folders: Sequence[Path], names: Sequence[str], expected: str, beside: Sequence[Path] = ()) -> Path:
    """As ``find_first``, in ``folders`` and then ``beside``.

    Raises:
        ProtocolError: none has any; the message says what was ``expected``, and names ``folders`` alone: what lies
            beside a data set is looked at, but nobody need put a file there.
    """
    found = find_first([*folders, *beside], names)
    if found is None:
        places = ", ".join(dict.fromkeys(map(str, folders)))
        raise ProtocolError(f"{' or '.join(names)}: not found in {places}; expected {expected}")
    return found


def image_size(path: Path) -> tuple[int, int] | None:
    """(width, height) that an image file states, px; None for what is no image, or states more than anyone's memory."""
    try:
        if not path.is_file():
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return image.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
