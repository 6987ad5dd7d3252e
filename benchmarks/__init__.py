"""Benchmarks: data set -> protocol -> score, for any ``embed`` callable; only ``benchmarks.speed`` imports ``model``.

The command line imports this registry for ``--help``, so it must import nothing heavy.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.scoring.protocols import Protocol
    from shards.files import StrPath


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
    """An entry of the registry.

    Attributes:
        folder: name of the data set's folder under ``$LRFR_DATA``.
        summary: one-line help text.
        reader: ``module:function`` in ``benchmarks.datasets`` that reads the protocol.
        aligned: whether faces are aligned, so that the reader accepts landmark tables.
        degrades: whether images are degraded to sizes; those of the others are small already.
    """

    folder: str
    summary: str
    reader: str
    aligned: bool = False
    degrades: bool = False

    def read(self, root: StrPath, landmarks: Sequence[StrPath] | Callable[[Sequence[Path]], Path] = ()) -> Protocol:
        """Reads the protocol of the data set in ``root``.

        Args:
            landmarks: tables to use instead of the data set's own, or a function that makes the table of some images.

        Raises:
            ProtocolError: the data set is missing or incomplete.
        """
        module, function = self.reader.split(":")
        reader = getattr(importlib.import_module(f"benchmarks.datasets.{module}"), function)
        if not self.aligned:
            return reader(Path(root))
        return reader(Path(root), landmarks if callable(landmarks) else list(map(Path, landmarks)))


BENCHMARKS: dict[str, Benchmark] = {
    "lfw": Benchmark(
        folder="LFW",
        summary="LFW at low resolution: 10-fold accuracy and AUC at 8, 12, 16, 20 px and full size, HR to LR and LR to LR.",
        reader="lfw:read_lfw",
        aligned=True,
        degrades=True,
    ),
    "xqlfw": Benchmark(
        folder="XQLFW",
        summary="XQLFW, cross-quality pairs: 10-fold accuracy, AUC.",
        reader="lfw:read_xqlfw",
        aligned=True,
    ),
    "scface": Benchmark(
        folder="SCface",
        summary="SCface, surveillance cameras against mugshots: rank-1 at three distances, all subjects and 51-130.",
        reader="scface:read_scface",
        aligned=True,
    ),
    "qmul": Benchmark(
        folder="QMUL-SurvFace",
        summary="QMUL-SurvFace verification: TAR at FAR 30, 10, 1, 0.1 %, AUC, accuracy.",
        reader="qmul:read_qmul",
    ),
    "qmul-id": Benchmark(
        folder="QMUL-SurvFace",
        summary="QMUL-SurvFace open-set identification: TPIR20 at FPIR 30, 20, 10, 1 %, AUC.",
        reader="qmul:read_qmul_id",
    ),
    "tinyface": Benchmark(
        folder="TinyFace",
        summary="TinyFace closed-set identification with distractors: rank 1, 5, 10, 20, mAP.",
        reader="tinyface:read_tinyface",
    ),
}


def is_own_benchmark(name: str) -> bool:
    """Returns True for the path of a TOML file, which describes a user's own benchmark."""
    return name.lower().endswith(".toml")


def read_benchmark(name: str, root: StrPath) -> Protocol:
    """Reads the protocol of a benchmark.

    Args:
        name: a key of ``BENCHMARKS``, or the path of a TOML file that describes a benchmark of your own.
        root: folder that holds all data sets.

    Raises:
        ProtocolError: there is no such benchmark, or the data set is incomplete or malformed.
        TypeError: an argument has a wrong type.
    """
    from benchmarks.errors import ProtocolError
    from pipeline.images.lookup import find_entry
    from shards.arguments import check_argument, check_path

    check_argument(isinstance(name, str), "name", name, f"one of {', '.join(BENCHMARKS)}")
    if is_own_benchmark(name):
        return importlib.import_module("benchmarks.datasets.own_benchmark").read_own_benchmark(Path(name)).protocol()
    if name not in BENCHMARKS:
        raise ProtocolError(f"unknown benchmark {name!r}; choose from {', '.join(BENCHMARKS)}, or a TOML file")
    benchmark, root = BENCHMARKS[name], check_path("root", root)
    return benchmark.read(find_entry(root, benchmark.folder) or root / benchmark.folder)
