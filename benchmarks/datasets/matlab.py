"""MATLAB lists of file names and identities."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from scipy.io.matlab import MatReadError

from benchmarks.errors import ProtocolError
from pipeline.sources.images import read_regular

# what SciPy raises on damaged files, as found by damaging them
_UNREADABLE = (OSError, ValueError, NotImplementedError, TypeError, LookupError, EOFError, MatReadError, zlib.error)
_HDF = b"MATLAB 7.3"  # how the header of a file begins that SciPy does not read
_MOST_ID = 2**31 - 1


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
    """(count,) int64 identities, from 0, of a numeric column. Raises: ProtocolError: as ``read_cells``."""
    values = _variable(path, variable)
    if values.dtype.kind not in "uif" or values.size != count:
        raise ProtocolError(
            f"{path}: {variable} has {values.size} values of {values.dtype}, expected {count} numbers, one an image"
        )
    values = values.ravel()
    wrong = np.flatnonzero(~((values >= 0) & (values <= _MOST_ID) & (values == np.floor(values))))
    if len(wrong):
        raise ProtocolError(
            f"{path}: {variable}, row {wrong[0] + 1}: {values[wrong[0]]}, expected a whole number from 0 to {_MOST_ID};"
            " restore the file from the archive"
        )
    return values.astype(np.int64)


def _variable(path: Path, variable: str) -> np.ndarray:
    try:
        data = read_regular(path)
        if data.startswith(_HDF):
            raise ProtocolError(f"{path}: a MATLAB 7.3 file, expected MATLAB 5 to 7; save it again with: save -v7")
        content = scipy.io.loadmat(io.BytesIO(data))
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
    text = str(inner[0]).strip()
    if "\0" in text:
        raise ProtocolError(f"{path}: a cell holds {text[:40]!r}, expected a file name")
    return text
