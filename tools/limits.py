"""Calculates how the parts of a set and of its training grow with the number of images."""

from __future__ import annotations

import dataclasses
import math

from benchmarks.report.document import Grid
from shards.columns import COLUMNS
from shards.index import RESERVED_FILES
from shards.schema import INDEX_SCHEMA
from tools.made_set import SHARD_ROWS, VGGFACE2_IDENTITIES, VGGFACE2_IMAGES

WEBFACE_IMAGES, WEBFACE_IDENTITIES = 42_474_558, 2_059_906  # WebFace42M, as its authors count it
BILLION = 1_000_000_000
KEY_CHARACTERS = 20  # of a key ``identity/image``
STRINGS_BYTES = 1 << 31  # of characters in one array of Arrow's strings, whose offsets are int32
LABELS = 1 << 31  # int32
LISTED = 1000  # names in one answer of a store
OPEN_FILES = 1024  # the usual soft limit of a process
STORED_BYTES, INDEX_BYTES = 8200, 100  # of the shards and of index.parquet for an image of 128 px, measured
PLAN_BYTES = 80  # of a row of a landmark table: tests/pipeline/build/test_plan_memory.py
EMBEDDING, FLOAT_BYTES, COPIES = 512, 4, 3  # copies of the head: weights, gradient, momentum
BATCH_IMAGES, RANKS = 4096, 64  # of a step of all ranks together
# of the cosines at the peak of a step, for batches of more images than numbers a row: tools/head_memory.py
STEP_COPIES = 5
VIEWS = 4
BUILD_US, PARENT_US, CORES = 380, 6, 64  # of an image: in the workers, in the process that plans
GPU_IMAGES_S = 1000  # of one GPU, for scale only: no GPU has been measured


@dataclasses.dataclass(frozen=True)
class Size:
    """A set, by what it has."""

    images: int
    identities: int

    @property
    def shards(self) -> int:
        return math.ceil(self.images / SHARD_ROWS)


SIZES = {
    "VGGFace2": Size(VGGFACE2_IMAGES, VGGFACE2_IDENTITIES),
    "WebFace42M": Size(WEBFACE_IMAGES, WEBFACE_IDENTITIES),
    "a billion": Size(BILLION, BILLION * WEBFACE_IDENTITIES // WEBFACE_IMAGES),
}


def row_bytes() -> int:
    """Memory of a row of the index, bytes."""
    return sum(INDEX_SCHEMA.field(name).type.bit_width // 8 for name in COLUMNS)


def facts(size: Size) -> dict[str, float]:
    """Each quantity of a set of this size, with its unit."""
    images, identities, shards = size.images, size.identities, size.shards
    head = identities * EMBEDDING * FLOAT_BYTES * COPIES / 1e9
    cosines = BATCH_IMAGES * identities * FLOAT_BYTES / 1e9
    readable = OPEN_FILES - RESERVED_FILES
    return {
        "images, million": images / 1e6,
        f"identities, thousand; int32 labels end at {LABELS // 1000:,}": identities / 1e3,
        f"shards of {SHARD_ROWS:,}": shards,
        f"answers of {LISTED:,} names to list the set's files": math.ceil(4 * shards / LISTED),
        f"% of random reads that open a tar, {readable} stay open": max(0.0, 100 * (1 - readable / shards)),
        "shards, GB": images * STORED_BYTES / 1e9,
        "index.parquet, GB": images * INDEX_BYTES / 1e9,
        f"index in memory, GB ({row_bytes()} bytes a row)": images * row_bytes() / 1e9,
        f"plan of a build, GB in one process ({PLAN_BYTES} bytes a row)": images * PLAN_BYTES / 1e9,
        f"characters of {KEY_CHARACTERS}-letter keys, GB; an Arrow array ends at {STRINGS_BYTES / 1e9:.2f}": (
            images * KEY_CHARACTERS / 1e9
        ),
        f"build, minutes on {CORES} cores at {BUILD_US} us": images * BUILD_US / 1e6 / CORES / 60,
        f"plan and index, minutes on one core at {PARENT_US} us": images * PARENT_US / 1e6 / 60,
        f"one pass, GPU hours at {GPU_IMAGES_S:,} images/s": images / GPU_IMAGES_S / 3600,
        f"epochs of each identity once in a pass, {VIEWS} views": images / identities / VIEWS,
        "head, GB: weights, gradient, momentum": head,
        f"the same on each of {RANKS} ranks, --shard-head": head / RANKS,
        f"cosines of {BATCH_IMAGES:,} images, GB": cosines,
        f"a step on each of {RANKS} ranks, GB: head, {STEP_COPIES} x cosines": (head + STEP_COPIES * cosines) / RANKS,
        "requests of a pass, million: an image each": images / 1e6,
        "requests of a pass, million: whole shards in order": shards / 1e6,
    }


def limits_grid() -> Grid:
    """A column for each of ``SIZES``."""
    columns = [facts(size) for size in SIZES.values()]
    rows = [[name, *(_short(column[name]) for column in columns)] for name in columns[0]]
    return Grid(caption="Size of", header=["", *SIZES], rows=rows)


def _short(value: float) -> str:
    """Three digits or more, never 1e+09."""
    if value == 0 or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"
