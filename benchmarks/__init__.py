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
        read = getattr(importlib.import_module(f"benchmarks.{module}"), function)
        return read(root, landmarks) if self.aligned else read(root)


BENCHMARKS: dict[str, Benchmark] = {
    "lfw": Benchmark(
        folder="LFW",
        summary="LFW at 8, 12, 16, 20 and 128 px, HR to LR and LR to LR: accuracy over folds, AUC.",
        reader="lfw:read_lfw",
        aligned=True,
    ),
    "xqlfw": Benchmark(
        folder="XQLFW",
        summary="Cross-quality LFW: accuracy over folds, AUC.",
        reader="lfw:read_xqlfw",
        aligned=True,
    ),
    "scface": Benchmark(
        folder="SCface",
        summary="SCface: rank-1 at three distances, all subjects and 51-130.",
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
        summary="TinyFace identification among distractors: rank 1, 5, 10, 20, mAP.",
        reader="tinyface:read_tinyface",
    ),
}
