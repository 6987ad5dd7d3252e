"""ShardWriter: one tar with its DALI index and its Parquet rows, committed as one."""

from __future__ import annotations

import contextlib
import dataclasses
import operator
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from shards.errors import ShardError
from shards.files import file_facts, read_record, whole_file, write_bytes, write_record
from shards.schema import ROW_SCHEMA, STATUS_OK, shard_file

_BLOCK = tarfile.BLOCKSIZE
_BUFFER = 1 << 20  # bytes written at a time
_ZEROS = bytes(_BLOCK)
DATA_SUFFIXES = ("tar", "idx", "parquet")
DONE_SUFFIX = "done.json"


@dataclasses.dataclass(kw_only=True, slots=True)
class Row:
    """One input, stored or rejected; the columns of ``ROW_SCHEMA`` that do not depend on the tar. Filled in as its image is read."""

    key: str
    identity: str
    label: int
    landmarks: Sequence[float] | None = None  # 10, source px
    matrix: Sequence[float] | None = None  # 6
    eye_distance: float | None = None  # source px
    width: int | None = None
    height: int | None = None
    status: str = STATUS_OK
    error_message: str | None = None


_OF_ROW = tuple(field.name for field in dataclasses.fields(Row))
_OF_PLACE = ("shard", "offset", "size", "xxh3")
_of_row = operator.attrgetter(*_OF_ROW)


def member_stem(key: str) -> str:
    """The name of a key inside the tar.

    WebDataset cuts a name at the first dot of its last part and DALI's index at white space, so both
    are percent-encoded. Ordinary keys stay as they are.

    Raises:
        ShardError: longer than a tar header holds.
    """
    if _ORDINARY.fullmatch(key):
        return key
    folder, _, name = key.rpartition("/")
    stem = "/".join(filter(None, (quote(folder), quote(name, safe="").replace(".", "%2E"))))
    if len(name := stem.rpartition("/")[2]) > 90 or len(stem) - len(name) > 150:
        raise ShardError(f"{key[:80]}...: name too long for a tar header (90 bytes, folder 150); shorten the file name")
    return stem


def _header(name: str, size: int) -> bytes:
    """A ustar header, mtime 0, owner 0: the same input gives the same bytes.

    That of ``tarfile``, from a template, as only name and size differ: it takes a tenth of the time.
    """
    if len(name) > _NAME_BYTES:
        return _tarfile_header(name, size)
    text, octal = name.encode("ascii"), b"%011o" % size
    header = bytearray(_TEMPLATE)
    header[: len(text)] = text
    header[_SIZE_AT : _SIZE_AT + len(octal)] = octal
    header[_SUM_AT : _SUM_AT + 6] = b"%06o" % (_TEMPLATE_SUM + sum(text) + sum(octal))
    return bytes(header)


def _tarfile_header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


_NAME_BYTES, _SIZE_AT, _SUM_AT = 100, 124, 148  # of the ustar format, POSIX.1-1988
_TEMPLATE = _tarfile_header("", 0)
_TEMPLATE_SUM = sum(_TEMPLATE) - sum(_TEMPLATE[_SUM_AT : _SUM_AT + 8]) + 8 * ord(" ") - sum(b"%011o" % 0)
_ORDINARY = re.compile(r"[A-Za-z0-9_-]{1,80}/[A-Za-z0-9_-]{1,80}", re.ASCII)


class ShardWriter:
    """Writes shard ``shard`` of ``root``; use as a context manager and end with ``commit``.

    Nothing appears under a final name before ``commit``; an exception leaves nothing behind.
    """

    def __init__(self, root: Path, shard: int, fingerprint: str) -> None:
        self._root, self._shard, self._fingerprint = root, shard, fingerprint
        self._stack = contextlib.ExitStack()
        self._rows: list[tuple[Any, ...]] = []
        self._index: list[str] = []
        self._position = 0

    def __enter__(self) -> ShardWriter:
        self._tar_path = self._stack.enter_context(whole_file(self._root / shard_file(self._shard, "tar")))
        self._tar = self._stack.enter_context(open(self._tar_path, "wb", buffering=_BUFFER))
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def add(self, row: Row, jpeg: bytes | None = None) -> None:
        """Adds an input: with ``jpeg`` where it is stored, without where it was rejected.

        Raises:
            ShardError: the key is too long for a tar.
        """
        place: tuple[int | None, ...] = (None, None, None)
        if jpeg is not None:
            stem, label = member_stem(row.key), str(row.label).encode()
            offset = self._member(f"{stem}.jpg", jpeg)
            label_offset = self._member(f"{stem}.cls", label)
            self._index.append(f"jpg {offset} {len(jpeg)} {stem}.jpg cls {label_offset} {len(label)} {stem}.cls\n")
            place = (offset, len(jpeg), xxhash.xxh3_64_intdigest(jpeg))
        self._rows.append((*_of_row(row), self._shard, *place))

    def _member(self, name: str, data: bytes) -> int:
        offset, size = self._position + _BLOCK, len(data)
        padding = -size % _BLOCK
        self._tar.write(b"".join((_header(name, size), data, _ZEROS[:padding])))
        self._position = offset + size + padding
        return offset

    def commit(self) -> dict[str, Any]:
        """Makes the shard appear: tar, index, rows, then the done record, which it returns."""
        self._tar.write(bytes(2 * _BLOCK))
        self._stack.close()  # the tar is closed and takes its name
        write_bytes(self._path("idx"), f"v1.2 {len(self._index)}\n".encode() + "".join(self._index).encode())
        columns = dict(zip((*_OF_ROW, *_OF_PLACE), zip(*self._rows, strict=True), strict=True))
        table = pa.table({name: columns.get(name, ()) for name in ROW_SCHEMA.names}, schema=ROW_SCHEMA)
        with whole_file(self._path("parquet")) as temporary:
            pq.write_table(table, temporary, compression="zstd")
        statuses, counts = np.unique(table["status"].to_numpy().astype(str), return_counts=True)
        record = {
            "shard": self._shard,
            "fingerprint": self._fingerprint,
            "rows": table.num_rows,
            "images": len(self._index),
            "statuses": dict(zip(statuses.tolist(), counts.tolist(), strict=True)),
            "files": {self._path(suffix).name: file_facts(self._path(suffix)) for suffix in DATA_SUFFIXES},
        }
        write_record(self._path(DONE_SUFFIX), record)
        return record

    def _path(self, suffix: str) -> Path:
        return self._root / shard_file(self._shard, suffix)


def done_record(root: Path, shard: int, fingerprint: str) -> dict[str, Any] | None:
    """The done record of a committed shard of this very plan whose files have their sizes; otherwise None."""
    try:
        record = read_record(root / shard_file(shard, DONE_SUFFIX))
        sizes = {name: facts["size"] for name, facts in record["files"].items()}
        whole = all((root / name).stat().st_size == size for name, size in sizes.items())
    except (ShardError, OSError):
        return None
    return record if whole and record["fingerprint"] == fingerprint else None
