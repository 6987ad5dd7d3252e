"""Tables of generated embeddings."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.search.calibration import Calibration
from benchmarks.search.likelihood import Fitted, Line
from tests.benchmarks.search.vectors import METADATA, table_of


@pytest.fixture
def write(tmp_path):
    """``write(name, vectors, **facts)`` writes a table of ``table_of``; returns its path."""

    def writer(name, vectors, *, group_rows=1000, **facts):
        path = tmp_path / name
        with open(path, "wb") as stream:  # PyArrow would take a path with a colon for a URI
            pq.write_table(table_of(vectors, **facts), stream, row_group_size=group_rows)
        return path

    return writer


@pytest.fixture
def calibrated():
    """``calibrated(**facts)`` is a calibration with some facts of its line, and of where it comes from."""

    def make(*, network=None, source=None, **line):
        line = Line(**{"slope": 10.0, "intercept": -4.0, "scores": (-1.0, 1.0), "bounds": (-3.0, 3.0), **line})
        scores = np.linspace(*line.scores, 11)
        middle = np.clip(line.unbounded(scores), *line.bounds)
        return Calibration(
            fitted=Fitted(
                line=line,
                curve_scores=scores.tolist(),
                curve_low=(middle - 0.5).tolist(),
                curve_high=(middle + 0.5).tolist(),
                cllr=0.3,
                cllr_interval=(0.2, 0.4),
                min_cllr=0.25,
                misleading=(0.1, 0.05),
            ),
            network=network or {"digest": METADATA["digest"], "backbone": "x"},
            source=source or {"pairs": "lfw@8"},
            counts={"genuine": 999, "impostors": 999, "people": 99},
            date="2026-01-01",
        )

    return make
