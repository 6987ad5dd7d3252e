"""RecordIO files of insightface: MS1M, WebFace, Glint and others."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.images.decode import ImageError
from pipeline.images.lookup import find_entry
from pipeline.sources.recordio_file import HEADER_BYTES, RecordFile
from pipeline.sources.recordio_listing import UNKNOWN, Records, list_records
from pipeline.sources.source import Reader, Rows, Source, SourceError
from shards.files import open_regular
from shards.messages import print_stderr


class RecordReader(Reader):
    """Reads images of a ``.rec`` file; their places are offsets, 8 bytes each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records: RecordFile | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return RecordReader, (self._path,)

    def read(self, place: bytes, max_bytes: int | None = None) -> bytes:
        """Returns the content of the image in the record at offset ``place``, see ``Reader.read``."""
        if self._records is None:
            self._records = RecordFile(self._path)
        payload = self._records.payload(int.from_bytes(place, "little"), max_bytes)
        start = HEADER_BYTES + 4 * int.from_bytes(payload[:4], "little")
        if len(payload) < max(start, HEADER_BYTES):
            raise ImageError(f"the record has {len(payload)} bytes, too few for its header and labels")
        return payload[start:]

    def close(self) -> None:
        if self._records is not None:
            self._records.close()
        self._records = None


class RecordIO(Source):
    """``train.rec``, ``train.idx`` and ``property``, with images as crops that are aligned already."""

    name = "recordio"
    dataset = "RecordIO"
    shards = "shards-recordio"
    template_hint = (
        "say which template its crops follow: --aligned arcface (as insightface's sets of 112 x 112 px), seed or a TOML file;"
        " or --template none, to resize images whole"
    )

    def locate(self, root: Path) -> Path:
        """Returns the ``.rec`` file: ``train.rec`` in ``root``, or the only such file there, or ``root`` itself."""
        if not root.is_dir():
            if root.suffix.lower() == ".rec" and root.exists():
                return root
            raise SourceError(f"{root}: not a folder; --root names the folder with train.rec and train.idx")
        others = sorted(path for path in root.iterdir() if path.suffix.lower() == ".rec" and path.name[0] != ".")
        found = find_entry(root, "train.rec") or (others[0] if len(others) == 1 else None)
        if found is None:
            several = f" (one of {', '.join(path.name for path in others[:3])} with --root)" if others else ""
            raise SourceError(f"{root}: no train.rec in it{several}")
        return found

    def watched(self, root: Path) -> list[Path]:
        return [root.parent, root]

    def rows(self, root: Path, landmarks: Sequence[Path], *, aligning: bool) -> Rows:
        index = find_entry(root.parent, f"{root.stem}.idx")
        if index is None:
            print_stderr(f"{root.name}: without {root.stem}.idx its records are found by reading it to its end")
        try:
            with contextlib.closing(RecordFile(root)) as file:
                records, size = list_records(file, index), file.size
        except OSError as error:
            raise SourceError(f"{error.filename or root}: {error.strerror}; expected a RecordIO file") from None
        if len(records.numbers) == 0:
            raise SourceError(f"{root}: no images in it; expected records with a label and an image")
        if records.stated > records.numbers[-1] + 1:
            print_stderr(
                f"{root.name}: its first record states {records.stated:,} records, and the last one found is number"
                f" {records.numbers[-1]:,}: the file or its index is cut"
            )
        _check_property(root.with_name("property"), records)
        digest = hashlib.sha256(str(size).encode())
        for array in (records.numbers, records.offsets, records.identities):
            digest.update(array.astype("<i8").tobytes())
        return Rows(
            keys=_keys(records),
            reader=RecordReader(root),
            parts={f"records of {root.name}": digest.hexdigest()},
            places=pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(8), len(records.offsets), [None, pa.py_buffer(np.ascontiguousarray(records.offsets, "<i8"))]
            ),
            problems={row: ("bad-record", reason) for row, reason in records.problems.items()},
        )


def _keys(records: Records) -> pa.StringArray:
    """(N,) keys such as ``000123/00004567``: identity and record number."""
    identities = pc.utf8_lpad(pc.cast(pa.array(records.identities), pa.string()), 6, "0")
    if (records.identities == UNKNOWN).any():
        identities = pc.if_else(pa.array(records.identities == UNKNOWN), "unknown", identities)
    numbers = pc.utf8_lpad(pc.cast(pa.array(records.numbers), pa.string()), 8, "0")
    return pc.binary_join_element_wise(identities, numbers, "/")


def _check_property(path: Path, records: Records) -> None:
    """Prints a line if the file ``property``, such as ``85742,112,112``, states another number of identities."""
    try:
        with open_regular(path) as stream:
            stated = int(stream.read(100).split(b",")[0])
    except (OSError, ValueError):
        return
    found = len(np.unique(records.identities[records.identities != UNKNOWN]))
    if found != stated:
        print_stderr(f"{path}: states {stated} identities, and the records have {found}")
