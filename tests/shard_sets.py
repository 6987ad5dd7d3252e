"""Small shard sets: their rows, and damage to their files."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from pipeline.build import BuildOptions
from pipeline.spec import Preprocessing


def flip_bit(path: Path, position: int) -> None:
    """Changes one bit of the byte at ``position``."""
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


def build_options(root: Path, out: Path, **changes) -> BuildOptions:
    """Options for a small build in this process."""
    defaults = {
        "root": root,
        "landmarks": (root / "bb_landmark" / "loose_landmark_train.csv",),
        "out": out,
        "preprocessing": Preprocessing(),
        "images_per_shard": 12,
        "executor": "serial",
    }
    return BuildOptions(**{**defaults, **changes})


def rows_of(out: Path) -> list[dict]:
    """The metadata of all images, also of those that are not stored."""
    return [row for path in sorted(out.glob("shard-*.parquet")) for row in pq.read_table(path).to_pylist()]


def rejected(out: Path) -> dict[str, tuple[str, str]]:
    """Key -> (status, reason) of the rows that were not stored."""
    return {row["key"]: (row["status"], row["error_message"]) for row in rows_of(out) if row["status"] != "ok"}
