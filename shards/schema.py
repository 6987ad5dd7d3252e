"""Format version, file names, Arrow schemas and manifest."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from shards.arguments import check_path
from shards.errors import ShardError
from shards.files import StrPath, check_fields, read_record
from shards.messages import command, counted

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
PLAN = "plan.json"
INDEX = "index.parquet"
LANDMARKS = "landmarks.parquet"  # made by build-shards --landmarks auto; not needed to read the set
STATUS_OK = "ok"
DATA_SUFFIXES = ("tar", "idx", "parquet")
DONE_SUFFIX = "done.json"
_FACT_TYPES = {"size": int, "xxh3": str, "sha256": str}
_DONE_TYPES = {"shard": int, "fingerprint": str, "rows": int, "images": int, "statuses": dict, "files": dict}
_MANIFEST_TYPES = {
    "fingerprint": str,
    "source": str,
    "identities": int,
    "empty_identities": int,
    "images": int,
    "rows": int,
    "shards": int,
    "statuses": dict,
    "preprocessing": dict,
    "files": dict,
    "versions": dict,
}

_IMAGE_FIELDS = [
    pa.field("key", pa.string(), nullable=False),  # identity/image, without extension or split folder
    pa.field("identity", pa.string(), nullable=False),
    pa.field("label", pa.int32(), nullable=False),  # -1: no row of the identity was to be stored
    pa.field("shard", pa.int32(), nullable=False),
    pa.field("offset", pa.int64()),  # of the JPEG in the tar, bytes
    pa.field("size", pa.int32()),  # of the JPEG, bytes
    pa.field("xxh3", pa.uint64()),  # of the JPEG
    pa.field("width", pa.int32()),  # of the source image, px
    pa.field("height", pa.int32()),
    # Variable-size lists, because PyArrow before 24 cannot read fixed-size lists with nulls.
    pa.field("landmarks", pa.list_(pa.float32())),  # 10 numbers: x and y of five points, source px
    pa.field("matrix", pa.list_(pa.float32())),  # 6 numbers: (2, 3), source px -> crop px
    pa.field("eye_distance", pa.float32()),  # source px
]
INDEX_SCHEMA = pa.schema(_IMAGE_FIELDS)
ROW_SCHEMA = pa.schema(
    [*_IMAGE_FIELDS, pa.field("status", pa.string(), nullable=False), pa.field("error_message", pa.string())]
)


def shard_file(shard: int, suffix: str) -> str:
    """Returns a file name such as ``shard-000012.tar``; suffix is ``tar``, ``idx``, ``parquet`` or ``done.json``."""
    return f"shard-{shard:06d}.{suffix}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of ``manifest.json``, which every finished shard set has.

    Attributes:
        fingerprint: digest of everything that determines the stored bytes.
        source: name of the source.
        identities: number of labels; an identity whose images were all rejected while building keeps its label.
        empty_identities: number of labels without a stored image.
        images: number of stored images.
        rows: number of input rows, stored or rejected.
        shards: number of tars.
        statuses: number of rows by status.
        preprocessing: the fields of ``pipeline.spec.Preprocessing``; ``pipeline.spec.spec_of`` reads them.
        files: name -> size, xxh3, sha256 of ``index.parquet`` and every ``.done.json``.
        versions: versions of the libraries that determined the pixels.
    """

    fingerprint: str
    source: str
    identities: int
    empty_identities: int
    images: int
    rows: int
    shards: int
    statuses: dict[str, int]
    preprocessing: dict[str, Any]
    files: dict[str, dict[str, Any]]
    versions: dict[str, str]

    @property
    def index_digest(self) -> str:
        """The digest of the index, which determines the batches that a sampler draws."""
        return str(self.files[INDEX]["xxh3"])

    def to_record(self) -> dict[str, Any]:
        """Returns the fields as plain values, with the format version."""
        return {"format_version": FORMAT_VERSION, **dataclasses.asdict(self)}

    @classmethod
    def read(cls, root: StrPath) -> Manifest:
        """Reads ``root/manifest.json``.

        Raises:
            ShardError: not a finished shard set, damaged, or of another format version.
            TypeError: ``root`` is not a path.
        """
        root = check_path("root", root)
        path = root / MANIFEST
        if not path.exists():
            if not (root / PLAN).exists():
                raise ShardError(f"{path}: not found; {root} is not a shard set; run: {command('build-shards')}")
            there = sum(1 for _ in root.glob(f"shard-*.{DONE_SUFFIX}"))
            raise ShardError(
                f"{path}: not found; {root} is an unfinished build; run build-shards again to resume it, or the parts"
                f" that are missing ({counted(there, 'shard')} done)"
            )
        record = read_record(path)
        version = record.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise ShardError(f"{path}: format version {version}, expected {FORMAT_VERSION}; build the shards again")
        check_fields(path, record, _MANIFEST_TYPES)
        if unknown := sorted(set(record) - set(_MANIFEST_TYPES)):
            raise ShardError(f"{path}: unknown field {unknown[0][:40]}; build the shards again")
        check_fields(path, record["statuses"], dict.fromkeys(record["statuses"], int))
        check_fields(path, record["versions"], dict.fromkeys(record["versions"], str))
        if not (record["images"] and record["shards"] and record["identities"] > record["empty_identities"]):
            raise ShardError(f"{path}: a set without images, shards or identities; build the shards again")
        if len(record["files"]) != record["shards"] + 1:  # before their names are listed: a number may be huge
            raise ShardError(f"{path}: {len(record['files'])} files, {record['shards']} shards; build the shards again")
        done = (shard_file(shard, DONE_SUFFIX) for shard in range(record["shards"]))
        _check_facts(path, record["files"], [INDEX, *done])
        return cls(**record)


def read_done(root: Path, shard: int) -> dict[str, Any]:
    """Reads the done record of a shard.

    Raises:
        ShardError: it is missing or damaged, belongs to another shard, or names other files than those of the shard.
    """
    path = root / shard_file(shard, DONE_SUFFIX)
    record = read_record(path)
    check_fields(path, record, _DONE_TYPES)
    check_fields(path, record["statuses"], dict.fromkeys(record["statuses"], int))
    names = [shard_file(shard, suffix) for suffix in DATA_SUFFIXES]
    if record["shard"] != shard or set(record["files"]) != set(names):
        raise ShardError(f"{path}: belongs to another shard, or names other files; build again into an empty --out")
    _check_facts(path, record["files"], names)
    return record


def read_plan(root: Path) -> dict[str, Any]:
    """Reads ``root/plan.json``: ``root`` of the source, and ``parts``, which determine the stored bytes.

    Raises:
        ShardError: it is missing or damaged.
    """
    record = read_record(root / PLAN)
    check_fields(root / PLAN, record, {"root": str, "parts": dict})
    return record


def _check_facts(path: Path, files: dict[str, Any], names: Sequence[str]) -> None:
    """Raises: ShardError: ``files`` lacks the size or a digest of one of ``names``."""
    check_fields(path, files, dict.fromkeys(names, dict))
    for name in names:
        check_fields(path, files[name], _FACT_TYPES)
