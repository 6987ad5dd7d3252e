"""Format version, file names, Arrow schemas and manifest."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pyarrow as pa

from shards.errors import ShardError
from shards.files import read_record

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
PLAN = "plan.json"
INDEX = "index.parquet"
STATUS_OK = "ok"

_IMAGE_FIELDS = [
    pa.field("key", pa.string(), nullable=False),  # identity/image, without extension or split folder
    pa.field("identity", pa.string(), nullable=False),
    pa.field("label", pa.int32(), nullable=False),  # -1: no image of the identity is stored
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
    def read(cls, root: Path) -> Manifest:
        """Reads ``root/manifest.json``.

        Raises:
            ShardError: not a finished shard set, damaged, or of another format version.
        """
        path = root / MANIFEST
        if not path.exists():
            state = (
                "an unfinished build; run build-shards again to resume it"
                if (root / PLAN).exists()
                else "not a shard set"
            )
            raise ShardError(f"{path}: not found; {root} is {state}")
        record = read_record(path)
        version = record.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise ShardError(f"{path}: format version {version}, expected {FORMAT_VERSION}; build the shards again")
        try:
            return cls(**record)
        except TypeError as error:
            raise ShardError(f"{path}: missing or unknown fields ({error}); build the shards again") from None
