"""Format version, file names, Arrow schemas and the manifest."""

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
    pa.field("label", pa.int32(), nullable=False),  # -1: the identity takes no part
    pa.field("shard", pa.int32(), nullable=False),
    pa.field("offset", pa.int64()),  # of the JPEG within the tar, bytes
    pa.field("size", pa.int32()),  # of the JPEG, bytes
    pa.field("xxh3", pa.uint64()),  # of the JPEG
    pa.field("width", pa.int32()),  # of the source image, px
    pa.field("height", pa.int32()),
    # Lists of 10 and 6, not Arrow's fixed-size lists: PyArrow before 24 cannot read those where one is null.
    pa.field("landmarks", pa.list_(pa.float32())),  # x, y of the five points, source px
    pa.field("matrix", pa.list_(pa.float32())),  # source px -> crop px, 2x3 row-major
    pa.field("eye_distance", pa.float32()),  # source px
]
INDEX_SCHEMA = pa.schema(_IMAGE_FIELDS)
ROW_SCHEMA = pa.schema(
    [*_IMAGE_FIELDS, pa.field("status", pa.string(), nullable=False), pa.field("error_message", pa.string())]
)


def shard_file(shard: int, suffix: str) -> str:
    """``shard-000012.tar`` and its neighbours; suffix is ``tar``, ``idx``, ``parquet`` or ``done.json``."""
    return f"shard-{shard:06d}.{suffix}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """What ``manifest.json`` says of a finished shard set.

    Attributes:
        identities: number of labels; an identity whose images were all rejected keeps its label.
        empty_identities: labels without a single stored image.
        images: stored crops.  rows: input rows, good and bad.  shards: number of tars.
        statuses: rows by status.
        preprocessing: how the images were prepared, as a mapping; ``pipeline.spec.spec_of`` reads it.
        files: name -> size, xxh3, sha256 of ``index.parquet`` and of every ``.done.json``.
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
        """Names the exact index, hence the exact batches that a sampler draws from it."""
        return str(self.files[INDEX]["xxh3"])

    def to_record(self) -> dict[str, Any]:
        """The manifest as JSON-able fields, with the format version."""
        return {"format_version": FORMAT_VERSION, **dataclasses.asdict(self)}

    @classmethod
    def read(cls, root: Path) -> Manifest:
        """Reads ``root/manifest.json``.

        Raises:
            ShardError: no finished shard set there, damage, or another format version.
        """
        path = root / MANIFEST
        if not path.exists():
            state = (
                "an unfinished build: run build-shards again to resume it"
                if (root / PLAN).exists()
                else "not a shard set"
            )
            raise ShardError(f"{path}: not found; {root} is {state}")
        record = read_record(path)
        version = record.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise ShardError(
                f"{path}: format version {version}, this tool reads {FORMAT_VERSION}; build the shards again"
            )
        try:
            return cls(**record)
        except (KeyError, TypeError) as error:
            raise ShardError(f"{path}: fields missing or unknown ({error}); build the shards again") from None
