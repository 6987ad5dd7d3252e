"""What a stage needs of a user's data sets, to be looked at before anything is timed."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from benchmarks import read_benchmark
from benchmarks.speed.excerpt import choose_pairs
from benchmarks.speed.faces import read_faces


def check_root(root: Path, data_sets: Collection[str]) -> None:
    """Looks for one face of ``VGGFace2``, for pairs of a kind of ``LFW``.

    Raises:
        RootError, ProtocolError: ``root`` does not have them.
    """
    if "VGGFace2" in data_sets:
        read_faces(root, 1)
    if "LFW" in data_sets:
        choose_pairs(read_benchmark("lfw", root), 1)
