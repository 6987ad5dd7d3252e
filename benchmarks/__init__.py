"""Data set -> protocol -> score. Gets an ``embed`` callable; never imports the model.

This list is light: the command line reads it for ``--help``.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One benchmark.

    Attributes:
        folder: of its data set, under ``$LRFR_DATA``.  summary: one line.
        reader: ``module:function`` that reads its protocol.  aligned: it takes landmarks.
    """

    folder: str
    summary: str
    reader: str
    aligned: bool = False

    def read(self, root: Path, landmarks: Sequence[Path] = ()) -> Any:
        """The protocol under ``root``. Raises: ProtocolError: the data set is not as it should be."""
        module, function = self.reader.split(":")
        read = getattr(importlib.import_module(f"benchmarks.datasets.{module}"), function)
        return read(root, landmarks) if self.aligned else read(root)


BENCHMARKS: dict[str, Benchmark] = {
    "lfw": Benchmark(
        folder="LFW",
        summary="LFW at low resolution: accuracy over folds and AUC at 8, 12, 16, 20 and 128 px, HR to LR and LR to LR.",
        reader="lfw:read_lfw",
        aligned=True,
    ),
    "xqlfw": Benchmark(
        folder="XQLFW",
        summary="XQLFW, pairs across quality: accuracy over folds, AUC.",
        reader="lfw:read_xqlfw",
        aligned=True,
    ),
    "scface": Benchmark(
        folder="SCface",
        summary="SCface, cameras against mugshots: rank-1 at three distances, all subjects and 51-130.",
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
        summary="QMUL-SurvFace watch list (open set): TPIR20 at FPIR 30, 20, 10, 1 %, AUC.",
        reader="qmul:read_qmul_id",
    ),
    "tinyface": Benchmark(
        folder="TinyFace",
        summary="TinyFace, search among distractors: rank 1, 5, 10, 20, mAP.",
        reader="tinyface:read_tinyface",
    ),
}


def read_benchmark(name: str, root: Path) -> Any:
    """The protocol of a benchmark whose data set lies in the folder ``root`` of all data sets. Raises: as ``read``."""
    from pipeline.sources.finder import find_entry

    home = BENCHMARKS[name].folder
    return BENCHMARKS[name].read(find_entry(root, home) or root / home)
