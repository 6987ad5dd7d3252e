"""Small shard sets, and damage to their files."""

from __future__ import annotations

from pathlib import Path

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
