"""Format version, file names, Arrow schemas, the preprocessing spec and the manifest."""

from __future__ import annotations

import dataclasses
import math
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
NO_TEMPLATE = "none"  # the whole image is resized, its aspect ratio not kept: no landmarks, no alignment
RESIZE = "pillow-bicubic"  # how it is
_AS_PRETRAINED = ("size", "degradation", "color", "mean", "std")  # what fine-tuning cannot change

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
class Preprocessing:
    """What was done to a face before a network saw it; travels with shards and checkpoints.

    Template ``none`` with warp ``pillow-bicubic`` says that images were not aligned but resized whole.

    A released model's score fell by eleven points when a library changed its default filter: the pixels
    that a network learned from are part of the network.
    """

    template: str = "seed"
    size: int = 128  # side of the square crop, px
    warp: str = "opencv-cubic"
    degradation: str = "pillow-bicubic"
    color: str = "RGB"
    mean: float = 0.5  # of pixels in 0..1
    std: float = 0.5
    jpeg_quality: int = 95

    def __post_init__(self) -> None:
        for name, good, expected in (
            ("size", self.size > 0, "1 px or more"),
            ("mean", math.isfinite(self.mean), "a finite number"),
            ("std", 0 < self.std < math.inf, "a finite number above 0"),
            ("jpeg_quality", 1 <= self.jpeg_quality <= 100, "1 to 100"),
        ):
            if not good:
                raise ShardError(
                    f"preprocessing spec: {name} is {getattr(self, name)}, expected {expected};"
                    " restore the file that states it"
                )
        if (self.template == NO_TEMPLATE) != (self.warp == RESIZE):
            raise ShardError(
                f"preprocessing spec: template {self.template!r} does not go with warp {self.warp!r};"
                f" {NO_TEMPLATE!r} and {RESIZE!r} belong together"
            )

    @property
    def aligned(self) -> bool:
        """True where faces are aligned by landmarks, False where images are resized whole."""
        return self.template != NO_TEMPLATE

    @classmethod
    def unaligned(cls, **fields: Any) -> Preprocessing:
        """The spec of images that are resized whole; ``fields`` other than template and warp as given."""
        return cls(template=NO_TEMPLATE, warp=RESIZE, **fields)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Preprocessing:
        """The spec in ``record``.

        Raises:
            ShardError: fields are missing or unknown, or not of their type.
        """
        defaults = {field.name: field.default for field in dataclasses.fields(cls)}
        if set(record) != set(defaults):
            raise ShardError(f"preprocessing spec: fields {sorted(set(record) ^ set(defaults))} are missing or unknown")
        for name, default in defaults.items():
            kinds = (int, float) if isinstance(default, float) else (type(default),)
            if type(record[name]) not in kinds:
                raise ShardError(f"preprocessing spec: {name} is {record[name]!r}, expected {kinds[-1].__name__}")
        return cls(**record)

    def to_dict(self) -> dict[str, Any]:
        """The spec as JSON-able fields."""
        return dataclasses.asdict(self)

    def fine_tuned_on(self, images: Preprocessing) -> Preprocessing:
        """How to prepare images for a network that learned by this spec and goes on by that of ``images``.

        Alignment and JPEG quality may differ. A face with landmarks is aligned as the network last saw one:
        by ``images`` where they are aligned, by this spec where they were only resized. An image without
        landmarks is resized whole either way.

        Raises:
            ShardError: they differ in what the first layers learned to expect.
        """
        differing = [
            f"{name}: checkpoint {getattr(self, name)!r}, shards {getattr(images, name)!r}"
            for name in _AS_PRETRAINED
            if getattr(self, name) != getattr(images, name)
        ]
        if differing:
            raise ShardError(
                f"preprocessing disagrees ({'; '.join(differing)}); fine-tune on shards that were built alike"
            )
        return images if images.aligned else self


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """What ``manifest.json`` says of a finished shard set.

    Attributes:
        identities: number of labels; an identity whose images were all rejected keeps its label.
        empty_identities: labels without a single stored image.
        images: stored crops.  rows: input rows, good and bad.  shards: number of tars.
        statuses: rows by status.
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
    preprocessing: Preprocessing
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
            return cls(**{**record, "preprocessing": Preprocessing.from_dict(record["preprocessing"])})
        except (KeyError, TypeError) as error:
            raise ShardError(f"{path}: fields missing or unknown ({error}); build the shards again") from None
