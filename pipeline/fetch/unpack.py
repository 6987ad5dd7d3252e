"""Unpacks archives of images: person/image files only, nothing outside the folder, bounded in number and size."""

from __future__ import annotations

import functools
import gzip
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from pipeline.fetch.assets import FetchError
from pipeline.images.lookup import is_image
from pipeline.progress import Progress
from shards.files import whole_folder
from shards.messages import counted
from shards.system_names import is_system_name

MAX_FILES = 100_000
MAX_FILE_BYTES = 1 << 24
# what tarfile and zipfile raise on damaged files
_DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error),
    *(EOFError, ValueError, LookupError, RuntimeError),
)


def unpack_images(archive: Path, folder: Path, counts: tuple[int, int] | None = None) -> tuple[int, int]:
    """Unpacks ``.../person/image.jpg`` of a tar or zip to ``folder/person/image.jpg``; all of them or none.

    Other files, folders and hidden or system entries are left out. Files are written here, not by ``tarfile``, whose
    filters Python 3.11.0 to 3.11.3 lack: only content and the last two parts of a path are taken from the archive.

    Args:
        counts: expected number of images and of people.

    Returns:
        Number of images and of people.

    Raises:
        FetchError: the archive is damaged, has other counts, or an entry that no archive of images has.
        OSError: the disk is full, or a file cannot be written.
    """
    images = 0
    people: set[str] = set()
    try:
        total = counts[0] if counts else sum(1 for _ in _entries(archive))
        with whole_folder(folder) as new, Progress(f"unpack {archive.name}", total) as progress:
            for person, image, content in _entries(archive):
                (new / person).mkdir(exist_ok=True)
                with open(new / person / image, "xb") as copy, content() as stream:
                    copy.write(stream.read(MAX_FILE_BYTES))
                images += 1
                people.add(person)
                progress.update()
            if counts not in (None, (images, len(people))):
                raise FetchError(f"{archive}: {_described(images, len(people))}, expected {_described(*counts)}")
    except _DAMAGE as error:
        raise FetchError(f"{archive}: damaged ({error}); delete it, then run the same command again") from None
    return images, len(people)


def _described(images: int, people: int) -> str:
    return f"{counted(images, 'image')} of {counted(people, 'person')}"


def _entries(archive: Path) -> Iterator[tuple[str, str, Callable[[], IO[bytes]]]]:
    """Yields person, file name and content of each image.

    Raises:
        FetchError: too many images, a link or special file, or a path that leads out of the folder.
    """
    files = _zip_files(archive) if archive.suffix == ".zip" else _tar_files(archive)
    count = 0
    for path, size, is_regular, content in files:
        *folders, name = path.split("/")
        if not is_image(name) or any(is_system_name(part) for part in folders if part not in (".", "..")):
            continue
        count += 1
        if not is_regular or size > MAX_FILE_BYTES or count > MAX_FILES:
            raise FetchError(
                f"{archive}: {path!r} is a link, a special or a huge file, or one too many; expected images"
            )
        if not folders or any(part in ("", ".", "..") or "\\" in part for part in folders):
            raise FetchError(f"{archive}: an entry called {path!r}; expected person/image.jpg")
        yield folders[-1], name, content


_File = tuple[str, int, bool, Callable[[], IO[bytes]]]  # path, bytes, is it a regular file, content


def _zip_files(archive: Path) -> Iterator[_File]:
    with zipfile.ZipFile(archive) as pack:
        for info in pack.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)  # 0: not said
            yield info.filename, info.file_size, kind in (0, stat.S_IFREG), functools.partial(pack.open, info)


def _tar_files(archive: Path) -> Iterator[_File]:
    with tarfile.open(archive, "r:*") as tar:
        for member in tar:
            tar.members = []  # type: ignore[attr-defined]  # tarfile would keep every member it has read
            yield member.name, member.size, member.isreg(), functools.partial(tar.extractfile, member)  # type: ignore[misc]
