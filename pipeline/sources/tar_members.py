"""The images in a tar, and what its other members say of them, without unpacking it."""

from __future__ import annotations

import dataclasses
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from pipeline.images.lookup import is_image
from pipeline.sources.labels import MAX_IDENTITY_BYTES, row_points
from pipeline.sources.source import SourceError
from pipeline.tables.streams import packed
from shards.files import naming, open_regular
from shards.messages import counted
from shards.system_names import is_system_name

MAX_HEADER_BYTES = 1 << 20  # of one read of the tar module; long names are kilobytes
MAX_LABEL_BYTES = 1 << 20  # of a .cls, .json or .txt member that is read
BLOCK = 512
LABEL_SUFFIXES = (".json", ".cls", ".txt")  # the first one that states an identity counts
IDENTITY_FIELDS = ("identity", "label", "class", "cls")
POINT_FIELDS = ("landmarks", "kps")
_REMEDY = "copy or download it again, or take it out of the folder"


@dataclasses.dataclass(frozen=True, slots=True)
class Label:
    """What the members beside an image state; an identity of None: they state none, for a reason."""

    identity: str | None
    points: list[float] | None = None
    problem: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class TarImage:
    """An image in a tar: its name and where it lies, and its label, if there is one."""

    name: str
    offset: int
    size: int
    label: Label | None


def tar_images(path: Path, others: list[str]) -> Iterator[TarImage]:
    """Yields the images of a tar, in order. Adds members that are neither images nor labels to ``others``.

    Raises:
        SourceError: compressed, damaged, or cut.
        OSError: it cannot be read.
    """
    images: list[tuple[str, int, int]] = []
    labels: dict[str, dict[str, Label]] = {}
    with naming(path), open_regular(path) as stream:
        if reason := packed(stream.read(16)):
            raise SourceError(f"{path}: {reason.partition(', or give')[0]}")  # a pipe cannot be read image by image
        stream.seek(0)
        for member in _members(path, stream):
            parts = [part for part in member.name.split("/") if part not in ("", ".")]
            name = "/".join(parts)
            stem, suffix = os.path.splitext(name)
            suffix = suffix.lower()
            if any(map(is_system_name, parts)) or not member.isreg() or member.issparse():
                if not member.isdir():
                    others.append(f"{path.name}/{name}{'' if member.isreg() else ' (no regular file)'}")
            elif is_image(name):
                images.append((name, member.offset_data, member.size))
            elif suffix in LABEL_SUFFIXES:
                stream.seek(member.offset_data)
                content = stream.read(min(member.size, MAX_LABEL_BYTES + 1))
                label = parse_label(content, suffix)
                if labels.setdefault(stem, {}).setdefault(suffix, label) != label:
                    problem = f"the tar has several {suffix} of its name, which differ"
                    labels[stem][suffix] = Label(None, problem=problem)
            else:
                others.append(f"{path.name}/{name}")
    for name, offset, size in images:
        yield TarImage(name, offset, size, _label_of(name, labels))


def _label_of(name: str, labels: dict[str, dict[str, Label]]) -> Label | None:
    """The label of an image: that of the members with its name but for the extension, or but for all its extensions."""
    stem = os.path.splitext(name)[0]
    folder, slash, last = name.rpartition("/")
    found = labels.get(stem) or labels.get(f"{folder}{slash}{last.partition('.')[0]}")
    if not found:
        return None
    stated = [found[suffix] for suffix in LABEL_SUFFIXES if suffix in found]
    points = next((label.points for label in stated if label.points), None)
    first = next((label for label in stated if label.identity is not None), stated[0])
    return Label(first.identity, points, first.problem)


def parse_label(content: bytes, suffix: str) -> Label:
    """Reads a ``.cls``, ``.txt`` or ``.json`` member."""
    if len(content) > MAX_LABEL_BYTES:
        return Label(None, problem=f"its {suffix} has more than {MAX_LABEL_BYTES:,} bytes")
    try:
        text = content.decode("utf-8-sig").strip()
        if suffix == ".json":
            return _json_label(json.loads(text))
    except (ValueError, RecursionError):
        return Label(None, problem=f"its {suffix} is damaged")
    if not text or "\n" in text or "\0" in text or len(text.encode()) > MAX_IDENTITY_BYTES:
        return Label(None, problem=f"its {suffix} is not the name of an identity in one line")
    return Label(text)


def _json_label(content: Any) -> Label:
    if not isinstance(content, dict):
        return Label(identity_text(content), problem="its .json is not an object")
    field, stated = next(
        ((name, content[name]) for name in IDENTITY_FIELDS if content.get(name) is not None), ("", None)
    )
    points = next((content[name] for name in POINT_FIELDS if content.get(name) is not None), None)
    problem = f"its .json has a {field} that is not a name" if field else ""
    return Label(identity_text(stated), row_points(points), problem)


def identity_text(value: Any) -> str | None:
    """The name of an identity that JSON or a table states as text or a whole number; None for anything else."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip() if isinstance(value, str) or type(value) is int else ""
    good = text and "\0" not in text and "\n" not in text and len(text.encode("utf-8", "replace")) <= MAX_IDENTITY_BYTES
    return text if good else None


class _BoundedTar:
    """What the tar module reads from; it would allocate whatever size a header states."""

    def __init__(self, stream: BinaryIO) -> None:
        self.tell, self.seek, self._stream = stream.tell, stream.seek, stream

    def read(self, size: int) -> bytes:
        if size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self._stream.read(size)


def _members(path: Path, stream: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Yields the members of a tar. Raises: SourceError: it is damaged or cut."""
    size = os.fstat(stream.fileno()).st_size
    count, start = 0, 0
    try:
        with tarfile.open(fileobj=cast(Any, _BoundedTar(stream)), mode="r:", encoding="utf-8") as tar:
            while member := tar.next():
                cast(Any, tar).members = []  # it would keep them all
                if tar.offset <= start or member.offset_data + max(member.size, 0) > size:
                    raise tarfile.ReadError(f"{member.name!r:.80} is cut")
                yield member
                count, start = count + 1, tar.offset
            start = tar.offset
        _check_end(stream, start)
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:  # it recurses at long names
        raise SourceError(
            f"{path}: damaged or cut, after {counted(count, 'member')} and {start:,} bytes ({str(error)[:100]}); {_REMEDY}"
        ) from None


def _check_end(stream: BinaryIO, start: int) -> None:
    """Raises: tarfile.ReadError: something other than zeros follows the last member."""
    stream.seek(start)
    while block := stream.read(MAX_HEADER_BYTES):
        if block.strip(b"\0"):
            raise tarfile.ReadError("something that is not a member follows: damaged, or several tars joined")
