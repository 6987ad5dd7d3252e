"""Distinguishes images that are missing or bad from a source that is gone and from failures of this process."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from pipeline.sources.source import SourceError

# What the system says of one file. Anything else, such as too many open files or a dead mount, is no fault of the image.
_OF_ONE_FILE = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EACCES,
    errno.EPERM,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EINVAL,
    errno.ENXIO,
    errno.EIO,
}


class SourceWatch:
    """Notices that a folder of images is no longer the one that it was: unmounted, moved, deleted or failing.

    Picklable: worker processes compare with the folders that their parent has seen.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders = {folder: _identity(folder) for folder in folders}

    @property
    def folders(self) -> list[Path]:
        """The folders that are watched."""
        return list(self._folders)

    def check(self, error: OSError) -> None:
        """Checks whether an image can be blamed for an error of reading it.

        Raises:
            SourceError: a folder is gone.
            OSError: ``error``, which is trouble of this process or of the file system.
        """
        if error.errno is not None and error.errno not in _OF_ONE_FILE:
            raise error
        for folder, identity in self._folders.items():
            if identity is None:
                continue
            if error.errno == errno.EIO and folder.is_dir():
                os.listdir(folder)  # fails, too, if it is the disk and not a sector of it
            if _identity(folder) != identity:
                raise SourceError(
                    f"{folder}: no longer there (unmounted, moved or deleted while its images were read);"
                    " bring it back, then run the same command again"
                )


def _identity(folder: Path) -> tuple[int, int] | None:
    """Device and inode of a folder; None if there is none."""
    try:
        facts = os.stat(folder)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return facts.st_dev, facts.st_ino
