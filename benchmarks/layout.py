"""Finds what a data set consists of: files whatever the case of their names, MATLAB lists of names and ids."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from scipy.io.matlab import MatReadError

from benchmarks.errors import AbsentError, ProtocolError
from pipeline.folders import find_entry, find_folder
from pipeline.landmarks import IMAGE_SUFFIXES
from pipeline.synthetic import GENERATED_MARKER

# what SciPy raises on damaged files, as found by damaging them
_UNREADABLE = (OSError, ValueError, NotImplementedError, TypeError, LookupError, EOFError, MatReadError, zlib.error)


def is_generated(root: Path) -> bool:
    """True for the painted faces of demo-data."""
    return (root / GENERATED_MARKER).exists()


def set_folder(root: Path, dataset: str, name: str, expected: str) -> Path:
    """The folder ``name`` of a data set, in ``root``, in ``root/dataset``, or ``root`` itself.

    Raises:
        AbsentError: it is nowhere; the message says what was ``expected``.
    """
    found = find_folder(root, dataset, name)
    if found is None:
        raise AbsentError(
            f"{root}: no {name} in it; expected {expected} (name its folder, or run: python cli.py demo-data)"
        )
    return found


def find_first(folders: Iterable[Path], names: Sequence[str]) -> Path | None:
    """The first of ``names`` that the first of ``folders`` has."""
    found = (find_entry(folder, name) for folder in folders for name in names)
    return next((path for path in found if path), None)


def require(folders: Sequence[Path], names: Sequence[str], expected: str) -> Path:
    """As ``find_first``. Raises: ProtocolError: none has any; the message says what was ``expected``."""
    found = find_first(folders, names)
    if found is None:
        places = ", ".join(dict.fromkeys(map(str, folders)))
        raise ProtocolError(f"{' or '.join(names)}: not found in {places}; expected {expected}")
    return found


class Folder:
    """The images of one folder, found whatever the case of their names; the folder is listed once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        entries = sorted(path.iterdir()) if path.is_dir() else []
        self.images = [entry for entry in entries if entry.suffix.lower() in IMAGE_SUFFIXES]
        self._by_name = {entry.name.lower(): entry for entry in self.images}
        self._by_stem = {entry.stem.lower(): entry for entry in reversed(self.images)}

    def find(self, name: str) -> Path:
        """Where the image ``name`` is, with or without its extension; where it should be if it is nowhere."""
        lower = name.lower()
        stem = lower.rpartition(".")[0] if lower.endswith(IMAGE_SUFFIXES) else lower
        return self._by_name.get(lower) or self._by_stem.get(stem) or self.path / name


def read_cells(path: Path, variable: str, columns: int) -> np.ndarray:
    """(N, columns) file names of a cell array in a MATLAB file.

    Raises:
        ProtocolError: the file is damaged, lacks the variable, or it has another form.
    """
    cells = _variable(path, variable)
    if cells.ndim != 2 or cells.shape[1] != columns:
        raise ProtocolError(f"{path}: {variable} has shape {cells.shape}, expected (N, {columns}) cells of file names")
    return np.array([[_text(cell, path) for cell in row] for row in cells]).reshape(-1, columns)


def read_ids(path: Path, variable: str, count: int) -> np.ndarray:
    """(count,) int64 identities of a numeric column in a MATLAB file. Raises: ProtocolError: as ``read_cells``."""
    values = _variable(path, variable)
    if values.dtype.kind not in "uif" or values.size != count:
        raise ProtocolError(
            f"{path}: {variable} has {values.size} values of {values.dtype}, expected {count} numbers, one an image"
        )
    return values.ravel().astype(np.int64)


def _variable(path: Path, variable: str) -> np.ndarray:
    try:
        content = scipy.io.loadmat(path)
    except _UNREADABLE as error:
        reason = (str(error).splitlines() or [""])[0][:80]
        raise ProtocolError(f"{path}: not a readable MATLAB 5 file ({reason}); restore it from the archive") from None
    if variable not in content:
        found = ", ".join(name for name in content if not name.startswith("__")) or "nothing"
        raise ProtocolError(f"{path}: holds {found}, expected the variable {variable}")
    return np.asarray(content[variable])


def _text(cell: Any, path: Path) -> str:
    inner = np.asarray(cell).ravel()
    while inner.dtype == object and inner.size:
        inner = np.asarray(inner[0]).ravel()
    if inner.size != 1 or inner.dtype.kind != "U":
        raise ProtocolError(f"{path}: a cell holds {inner.dtype} of size {inner.size}, expected one file name")
    return str(inner[0]).strip()
