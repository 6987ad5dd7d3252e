"""MATLAB lists of file names and identities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.datasets.matfile import MatError, MatFile
from benchmarks.errors import ProtocolError
from pipeline.images.decode import read_regular
from pipeline.sources.file_readers import ImageFolder
from shards.messages import counted

_HDF5_HEADER = b"MATLAB 7.3"
MAX_FILE_BYTES = 1 << 28  # of a list, which is read at once; the longest of the benchmarks has 8 MB
MAX_ID = 2**31 - 1
MAX_NAME_CHARS = 512  # an array of names takes the longest one for each
MAX_LISTED = 8  # variables in a message


def read_image_list(path: Path, variable: str, folder: ImageFolder) -> tuple[list[Path], np.ndarray]:
    """Reads a list of images and their identities.

    Args:
        path: a MATLAB file with the variables ``<variable>_set`` (file names) and ``<variable>_ids``.
        folder: the folder of the images.

    Returns:
        N paths and (N,) int64 identities.

    Raises:
        ProtocolError: the file is damaged, lacks a variable, or a variable has the wrong type or is empty.
    """
    names = read_cells(path, f"{variable}_set", 1)[:, 0]
    if not len(names):
        raise ProtocolError(f"{path}: {variable}_set is empty, expected file names")
    return [folder.find(name) for name in names], read_ids(path, f"{variable}_ids", len(names))


def read_cells(path: Path, variable: str, columns: int) -> np.ndarray:
    """(N, columns) file names in a cell array.

    Raises:
        ProtocolError: the file is damaged or lacks the variable, the variable has the wrong shape or type, or a name
            leads out of its folder.
    """
    cells = _variable(path, variable)
    if cells.ndim != 2 or cells.shape[1] != columns:
        raise ProtocolError(f"{path}: {variable} has shape {cells.shape}, expected (N, {columns}) cells of file names")
    return np.array([[_file_name(cell, path) for cell in row] for row in cells]).reshape(-1, columns)


def read_ids(path: Path, variable: str, count: int) -> np.ndarray:
    """(count,) int64 identities from 0 in a numeric column. Raises: ProtocolError: as ``read_cells``."""
    values = _variable(path, variable)
    if values.dtype.kind not in "uif" or values.size != count:
        raise ProtocolError(
            f"{path}: {variable} has {counted(values.size, 'value')} of {values.dtype}, expected {count} numbers, one an image"
        )
    values = values.ravel()
    invalid = np.flatnonzero(~((values >= 0) & (values <= MAX_ID) & (values == np.floor(values))))
    if len(invalid):
        raise ProtocolError(
            f"{path}: {variable}, row {invalid[0] + 1}: {values[invalid[0]]}, expected an integer from 0 to {MAX_ID};"
            " restore the file from the archive"
        )
    return values.astype(np.int64)


def _variable(path: Path, variable: str) -> np.ndarray:
    try:
        if (size := path.stat().st_size) > MAX_FILE_BYTES:
            raise MatError(f"{size:,} bytes, expected at most {MAX_FILE_BYTES:,}")
        data = read_regular(path)
        if data.startswith(_HDF5_HEADER):
            raise ProtocolError(f"{path}: a MATLAB 7.3 file, expected MATLAB 5 to 7; save it again with: save -v7")
        file = MatFile(data)
        if variable not in file.names:
            found = ", ".join(file.names[:MAX_LISTED]) or "nothing"
            raise ProtocolError(f"{path}: contains {found}, expected the variable {variable}")
        return file.read(variable)
    except (OSError, MatError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ProtocolError(f"{path}: not a readable MATLAB 5 file ({reason}); restore it from the archive") from None


def _file_name(cell: Any, path: Path) -> str:
    inner = np.asarray(cell).ravel()
    while inner.dtype == object and inner.size:
        inner = np.asarray(inner[0]).ravel()
    if inner.size != 1 or inner.dtype.kind != "U":
        raise ProtocolError(f"{path}: a cell contains {inner.dtype} of size {inner.size}, expected one file name")
    text = str(inner[0]).strip()
    if "\0" in text or text.startswith("/") or ".." in text.split("/") or len(text) > MAX_NAME_CHARS:
        raise ProtocolError(f"{path}: a cell contains {text[:40]!r}, expected a file name below the folder of images")
    return text
