"""Landmark worker: finds the points of some consecutive images and stores them as a part of the table."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from pipeline.images.decode import MAX_PIXELS, ImageError, bytes_limit, decode_bytes, read_regular
from pipeline.landmarks.faces import Choice, find_faces
from pipeline.landmarks.networks import LiteRTNetworks, Networks
from pipeline.landmarks.table import SCHEMA, STATUS_NO_FACE, STATUS_UNREADABLE, found_row
from pipeline.opencv import quiet, single_thread
from pipeline.sources.folders import utf8
from pipeline.sources.watch import SourceWatch
from shards.files import open_regular, whole_file
from shards.tables import PARQUET_ERRORS

GROUP_IMAGES, GROUP_BYTES = 32, 1 << 22  # that advance together; pixels of more bytes are not kept
_CONTENT = b"content"  # metadata of a part: digest of the images that its rows are about
_opened = threading.local()


@dataclasses.dataclass(frozen=True, kw_only=True)
class LandmarkOptions:
    """What determines the landmarks of an image.

    Attributes:
        model: the model file.
        choose: which of several faces.
        max_pixels: an image that states more is not decoded; it becomes a row with a reason.
        open_networks: makes the networks of a model file; importable by name.
    """

    model: Path
    choose: Choice = "largest"
    max_pixels: int = MAX_PIXELS
    open_networks: Callable[[Path], Networks] = LiteRTNetworks

    def networks(self) -> Networks:
        """The networks, opened once in each thread: they hold the image that they are run on."""
        wanted = self.open_networks, self.model
        if getattr(_opened, "key", None) != wanted:
            _opened.networks, _opened.key = self.open_networks(self.model), wanted
        networks: Networks = _opened.networks
        return networks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chunk:
    """Some consecutive images, and the file of their rows."""

    root: Path
    names: list[str]  # below the root
    part: Path
    options: LandmarkOptions
    watch: SourceWatch

    def __str__(self) -> str:
        return f"{len(self.names)} images from {utf8(self.names[0])}"


def find_in_chunk(chunk: Chunk) -> tuple[int, bool]:
    """Stores the rows of a chunk, unless they are stored and the images are the same.

    Returns:
        The number of rows, and whether they were stored before.

    Raises:
        LandmarkerError: the model cannot be used.
        SourceError: the folder of the images is gone.
        OSError: the file system or this process is in trouble; no image can be blamed.
    """
    if chunk.part.exists() and _stored_content(chunk.part) == _content(chunk):
        return len(chunk.names), True
    content = xxhash.xxh3_128()
    rows: list[dict[str, Any]] = []
    images: list[tuple[str, np.ndarray | ImageError]] = []
    size = 0
    with single_thread, quiet:
        for name in chunk.names:
            data = _read(chunk, name)
            content.update(_digest(data))
            image = _decoded(name, data, chunk.options.max_pixels)
            images.append((name, image))
            size += 0 if isinstance(image, ImageError) else image.size
            if len(images) == GROUP_IMAGES or size > GROUP_BYTES:
                rows += _rows(images, chunk)
                images, size = [], 0
        rows += _rows(images, chunk)
    table = pa.Table.from_pylist(rows, SCHEMA.with_metadata({_CONTENT: content.hexdigest()}))
    with whole_file(chunk.part) as temporary, open(temporary, "wb") as stream:
        pq.write_table(table, stream, compression="zstd")  # would take a path with a colon for a URI
    return len(rows), False


def read_part(path: Path) -> pa.Table | None:
    """Reads the rows of a chunk; None if the file is damaged or absent."""
    try:
        with open_regular(path) as stream:
            table = pq.read_table(stream, use_threads=False)
        table.validate(full=True)
    except PARQUET_ERRORS:
        return None
    return table if table.schema.equals(SCHEMA) else None


def _stored_content(part: Path) -> str | None:
    table = read_part(part)
    return table.schema.metadata.get(_CONTENT, b"").decode() if table and table.schema.metadata else None


def _content(chunk: Chunk) -> str:
    """Digest of the images, as they are now."""
    content = xxhash.xxh3_128()
    for name in chunk.names:
        content.update(_digest(_read(chunk, name)))
    return content.hexdigest()


def _digest(data: bytes | ImageError) -> bytes:
    if isinstance(data, ImageError):
        return b"-" + str(data).encode()
    return b"+" + xxhash.xxh3_128_digest(data)


def _read(chunk: Chunk, name: str) -> bytes | ImageError:
    """The content of an image file, or why it cannot be read."""
    try:
        return read_regular(os.path.join(chunk.root, name), bytes_limit(chunk.options.max_pixels))
    except OSError as error:
        chunk.watch.check(error)
        return ImageError(f"cannot be read: {error.strerror}")
    except ImageError as error:
        return error


def _rows(images: Sequence[tuple[str, np.ndarray | ImageError]], chunk: Chunk) -> Iterator[dict[str, Any]]:
    """The rows of some images, given as names and pixels."""
    pixels = [image for _, image in images if not isinstance(image, ImageError)]
    faces = iter(find_faces(pixels, chunk.options.networks(), chunk.options.choose))
    for name, image in images:
        path = utf8(name)
        if isinstance(image, ImageError):
            yield {"path": path, "status": STATUS_UNREADABLE, "reason": str(image)}
        elif face := next(faces):
            yield found_row(path, face)
        else:
            reason = f"no face found in the {image.shape[1]}x{image.shape[0]} image"
            yield {"path": path, "faces": 0, "status": STATUS_NO_FACE, "reason": reason}


def _decoded(name: str, data: bytes | ImageError, max_pixels: int) -> np.ndarray | ImageError:
    if isinstance(data, ImageError):
        return data
    try:
        return decode_bytes(data, grey=True, max_pixels=max_pixels)
    except ImageError as error:
        return error
    except MemoryError as error:
        raise MemoryError(f"{name}: {error}") from None
