"""Images that lie within a larger file."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from pipeline.images.decode import ImageError, check_bytes
from shards.files import naming, open_regular


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilePart:
    """A range of bytes within a file that holds an image file.

    Attributes:
        number: of the image among those of the file, from 1.
        offset: of the first byte.
        size: in bytes.
        digest: XXH3-128 of the image file, which identifies it wherever it lies.
        as_text: the bytes are the UTF-8 form of a text whose characters stand for the bytes of the image file.
    """

    number: int
    offset: int
    size: int
    digest: bytes
    as_text: bool = False


def read_part(path: Path, part: FilePart, max_bytes: int | None = None) -> bytes:
    """Returns an image file that lies within the file ``path``.

    Raises:
        OSError: the file cannot be read, or is a pipe or device.
        ImageError: the image file has more than ``max_bytes``, or the file has become shorter.
    """
    check_bytes(part.size, max_bytes, "it")
    data = read_range(path, part.offset, part.size)
    try:
        return data.decode("utf-8").encode("latin-1") if part.as_text else data
    except UnicodeError:
        raise ImageError("damaged: not the text form of an image file") from None


def read_range(path: Path, offset: int, size: int) -> bytes:
    """Returns ``size`` bytes of a regular file. Raises: OSError, ImageError: as ``read_part``."""
    with naming(path), open_regular(path) as stream:
        present = os.fstat(stream.fileno()).st_size
        if offset + size > present:
            raise ImageError(f"the file ends within it: it has {present:,} bytes, expected {offset + size:,}")
        stream.seek(offset)
        data = stream.read(size)
    if len(data) < size:
        raise ImageError(f"the file ends within it: {len(data):,} of {size:,} bytes")
    return data
