"""The columns of an index, read and validated."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa

from shards.errors import ShardError
from shards.files import quick_digest
from shards.messages import command, counted
from shards.schema import INDEX, INDEX_SCHEMA, Manifest
from shards.tables import open_table

COLUMNS = ["label", "shard", "offset", "size", "xxh3"]
CHUNK_ROWS = 1 << 16
MAX_IMAGE_BYTES = 1 << 22  # of a JPEG; a loader allocates its longest image for each one of a batch
MAX_OFFSET = 1 << 48
_SCHEMA = pa.schema(map(INDEX_SCHEMA.field, COLUMNS))
TYPES = {field.name: np.dtype(field.type.to_pandas_dtype()) for field in _SCHEMA}

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class IndexColumns:
    """The columns of an index of N images of I identities, and where its identities are, see ``ShardIndex``."""

    label: np.ndarray
    shard: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    xxh3: np.ndarray
    labels: np.ndarray
    first: np.ndarray
    count: np.ndarray


def check_rows(path: Path, manifest: Manifest) -> None:
    """Raises: ShardError: an index is not that of the manifest, or has other columns or another number of rows."""
    try:
        same = path.stat().st_size == manifest.files[INDEX]["size"] and quick_digest(path) == manifest.index_digest
    except OSError as error:
        raise ShardError(f"{path}: {error.strerror or error}; run: {command('verify', path.parent)}") from None
    if not same:
        raise ShardError(f"{path}: does not match the manifest; run: {command('verify', '--full', path.parent)}")
    with open_table(path, _SCHEMA) as reader:
        rows = reader.metadata.num_rows
    if rows != manifest.images:
        raise ShardError(f"{path}: {counted(rows, 'row')}, the manifest states {counted(manifest.images, 'image')}")


def read_columns(path: Path, manifest: Manifest, columns: Arrays) -> None:
    """Reads and validates ``COLUMNS`` of an index in chunks, which needs little memory.

    Args:
        columns: arrays of ``manifest.images`` numbers with types ``TYPES``, which are filled.

    Raises:
        ShardError: the values are not those of a set with this manifest.
    """
    with open_table(path, _SCHEMA) as reader:
        start = 0
        for rows in reader.iter_batches(CHUNK_ROWS, columns=COLUMNS, use_threads=False):
            chunk = [columns[name][start : start + len(rows)] for name in COLUMNS]
            for part, values in zip(chunk, rows.select(COLUMNS).columns, strict=True):
                if values.null_count:
                    raise ShardError(f"{path}: a value is missing; build again into an empty --out")
                part[:] = np.from_dlpack(values)  # to_numpy() imports pandas (45 MB, 0.3 s)
            _check_chunk(path, manifest, chunk, start, previous_label=int(columns["label"][start - 1]) if start else 0)
            start += len(rows)
    if start != manifest.images:
        raise ShardError(f"{path}: {counted(start, 'row')}, the manifest states {counted(manifest.images, 'image')}")
    pa.default_memory_pool().release_unused()


def _check_chunk(path: Path, manifest: Manifest, chunk: list[np.ndarray], start: int, previous_label: int) -> None:
    """Raises: ShardError: labels are not sorted, or a value is out of range."""
    label, shard, offset, size, _ = chunk
    valid = (np.diff(label, prepend=previous_label) >= 0) & (label >= 0) & (label < manifest.identities)
    valid &= (shard >= 0) & (shard < manifest.shards) & (offset >= 0) & (offset <= MAX_OFFSET)
    valid &= (size > 0) & (size <= MAX_IMAGE_BYTES)
    for row in np.flatnonzero(~valid)[:1].tolist():
        raise ShardError(
            f"{path}: row {start + row + 1}: label {label[row]}, shard {shard[row]}, offset {offset[row]}, size"
            f" {size[row]}: out of range, or labels not sorted; build again into an empty --out"
        )


def identity_rows(label: np.ndarray) -> Arrays:
    """Labels, first rows and numbers of rows of the identities of sorted ``label``."""
    first = np.append(0, np.flatnonzero(label[1:] != label[:-1]) + 1)
    return {"labels": label[first], "first": first, "count": np.diff(first, append=len(label))}


def columns_in_memory(path: Path, manifest: Manifest) -> IndexColumns:
    """Reads the columns of an index.

    Raises:
        ShardError: the file is not that of the manifest, or its values are not those of a set with this manifest.
    """
    check_rows(path, manifest)
    arrays = {name: np.empty(manifest.images, kind) for name, kind in TYPES.items()}
    read_columns(path, manifest, arrays)
    return IndexColumns(**arrays, **identity_rows(arrays["label"]))
