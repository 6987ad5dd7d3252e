"""ShardWriter: writes a tar with its DALI index and Parquet rows, and commits them together."""

from __future__ import annotations

import contextlib
import dataclasses
import operator
import re
import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from shards.arguments import check_argument, check_path, check_whole
from shards.errors import ShardError
from shards.files import StrPath, file_facts, whole_file, write_bytes, write_record
from shards.schema import DATA_SUFFIXES, DONE_SUFFIX, ROW_SCHEMA, STATUS_OK, read_done, shard_file

BLOCK_BYTES = tarfile.BLOCKSIZE
BUFFER_BYTES = 1 << 20
MAX_NAME_BYTES, MAX_FOLDER_BYTES = 90, 150  # of a stem; a ustar header holds 100 and 155 with the extension


@dataclasses.dataclass(kw_only=True, slots=True)
class Row:
    """One input row, stored or rejected: the columns of ``ROW_SCHEMA`` that do not depend on the tar."""

    key: str
    identity: str
    label: int
    landmarks: Sequence[float] | None = None  # 10 numbers, source px
    matrix: Sequence[float] | None = None  # 6 numbers, source px -> crop px
    eye_distance: float | None = None  # source px
    width: int | None = None
    height: int | None = None
    status: str = STATUS_OK
    error_message: str | None = None


_ROW_COLUMNS = tuple(field.name for field in dataclasses.fields(Row))
_TAR_COLUMNS = ("shard", "offset", "size", "xxh3")
_row_values = operator.attrgetter(*_ROW_COLUMNS)


def member_stem(key: str) -> str:
    """Returns the name of a key in the tar, without extension.

    Dots in the last component and white space are percent-encoded, because WebDataset ends the key at the first dot
    and DALI separates the columns of its index by white space. A key that a tar header cannot hold is named by its
    hash; no other stem is without a slash.
    """
    if _PLAIN_KEY.fullmatch(key):
        return key
    folder, _, name = key.rpartition("/")
    stem = "/".join(filter(None, (quote(folder), quote(name, safe="").replace(".", "%2E"))))
    if len(name := stem.rpartition("/")[2]) > MAX_NAME_BYTES or len(stem) - len(name) > MAX_FOLDER_BYTES:
        return xxhash.xxh3_128_hexdigest(key.encode())
    return stem


def _header(name: str, size: int) -> bytes:
    """Returns a ustar header with mtime 0 and owner 0, so that equal input gives equal bytes.

    Equals the header of ``tarfile``, but ten times as fast, because it is built from a template.
    """
    if len(name) > _NAME_BYTES:
        return _tarfile_header(name, size)
    text, octal = name.encode("ascii"), b"%011o" % size
    header = bytearray(_TEMPLATE)
    header[: len(text)] = text
    header[_SIZE_OFFSET : _SIZE_OFFSET + len(octal)] = octal
    header[_CHECKSUM_OFFSET : _CHECKSUM_OFFSET + 6] = b"%06o" % (_TEMPLATE_CHECKSUM + sum(text) + sum(octal))
    return bytes(header)


def _tarfile_header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


_NAME_BYTES, _SIZE_OFFSET, _CHECKSUM_OFFSET = 100, 124, 148  # field sizes and offsets of ustar, POSIX.1-1988
_TEMPLATE = _tarfile_header("", 0)
_TEMPLATE_CHECKSUM = (
    sum(_TEMPLATE) - sum(_TEMPLATE[_CHECKSUM_OFFSET : _CHECKSUM_OFFSET + 8]) + 8 * ord(" ") - sum(b"%011o" % 0)
)
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,80}/[A-Za-z0-9_-]{1,80}", re.ASCII)


class ShardWriter:
    """Writes shard number ``shard`` of ``root``; a context manager. ``commit`` must be the last call in its block.

    No file has its final name before ``commit``. An exception deletes the temporary files.
    """

    def __init__(self, root: StrPath, shard: int, fingerprint: str) -> None:
        """Raises: TypeError, ValueError: an argument has a wrong type or value."""
        check_argument(isinstance(fingerprint, str), "fingerprint", fingerprint, "text")
        self._root, self._fingerprint = check_path("root", root), fingerprint
        self._shard = check_whole("shard", shard, 0)
        self._tar: BinaryIO | None = None
        self._stack = contextlib.ExitStack()
        self._rows: list[tuple[Any, ...]] = []
        self._index: list[str] = []
        self._position = 0

    def __enter__(self) -> ShardWriter:
        self._tar_path = self._stack.enter_context(whole_file(self._root / shard_file(self._shard, "tar")))
        self._tar = self._stack.enter_context(open(self._tar_path, "wb", buffering=BUFFER_BYTES))
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def add(self, row: Row, jpeg: bytes | None = None) -> None:
        """Adds an input row.

        Args:
            jpeg: the image to store; None for a rejected row.

        Raises:
            TypeError: an argument has a wrong type.
            RuntimeError: outside the ``with`` block.
        """
        check_argument(isinstance(row, Row), "row", row, "a Row, such as Row(key='n1/0001', identity='n1', label=0)")
        check_argument(isinstance(jpeg, bytes | None), "jpeg", jpeg, "the bytes of a JPEG, or None")
        self._open_tar()
        position: tuple[int | None, ...] = (None, None, None)
        if jpeg is not None:
            stem, label = member_stem(row.key), str(row.label).encode()
            offset = self._member(f"{stem}.jpg", jpeg)
            label_offset = self._member(f"{stem}.cls", label)
            self._index.append(f"jpg {offset} {len(jpeg)} {stem}.jpg cls {label_offset} {len(label)} {stem}.cls\n")
            position = (offset, len(jpeg), xxhash.xxh3_64_intdigest(jpeg))
        self._rows.append((*_row_values(row), self._shard, *position))

    def _member(self, name: str, data: bytes) -> int:
        offset, size = self._position + BLOCK_BYTES, len(data)
        padding = -size % BLOCK_BYTES
        self._open_tar().write(b"".join((_header(name, size), data, bytes(padding))))
        self._position = offset + size + padding
        return offset

    def commit(self) -> dict[str, Any]:
        """Publishes the tar, the DALI index, the rows and finally the done record, which it returns.

        Raises:
            RuntimeError: outside the ``with`` block.
        """
        self._open_tar().write(bytes(2 * BLOCK_BYTES))
        self._stack.close()  # closes the tar and renames it
        write_bytes(self._path("idx"), f"v1.2 {len(self._index)}\n".encode() + "".join(self._index).encode())
        columns = dict(zip((*_ROW_COLUMNS, *_TAR_COLUMNS), zip(*self._rows, strict=True), strict=True))
        table = pa.table({name: columns.get(name, ()) for name in ROW_SCHEMA.names}, schema=ROW_SCHEMA)
        with whole_file(self._path("parquet")) as temporary, open(temporary, "wb") as stream:
            pq.write_table(table, stream, compression="zstd")  # would take a path with a colon for a URI
        record = {
            "shard": self._shard,
            "fingerprint": self._fingerprint,
            "rows": table.num_rows,
            "images": len(self._index),
            "statuses": Counter(table["status"].to_pylist()),
            "files": {self._path(suffix).name: file_facts(self._path(suffix)) for suffix in DATA_SUFFIXES},
        }
        write_record(self._path(DONE_SUFFIX), record)
        return record

    def _open_tar(self) -> BinaryIO:
        if self._tar is None or self._tar.closed:
            raise RuntimeError("the writer is closed: write in its with block: with ShardWriter(...) as writer: ...")
        return self._tar

    def _path(self, suffix: str) -> Path:
        return self._root / shard_file(self._shard, suffix)


def done_record(root: Path, shard: int, fingerprint: str) -> dict[str, Any] | None:
    """Returns the done record of a shard if it was committed with this fingerprint and its files have their sizes."""
    try:
        record = read_done(root, shard)
        sizes = {name: facts["size"] for name, facts in record["files"].items()}
        complete = all((root / name).stat().st_size == size for name, size in sizes.items())
    except (ShardError, FileNotFoundError):
        return None
    return record if complete and record["fingerprint"] == fingerprint else None
