"""Tables of generated embeddings."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.engine.identities import IMAGE_SCHEMA
from benchmarks.search.calibration import Calibration
from benchmarks.search.likelihood import Fitted, Line

METADATA = {"backbone": "x", "digest": "00ff", "preprocessing": '{"size": 128}', "alignment": "none", "down": ""}


def units(count, length, seed=0):
    """(N, D) float32 random vectors of unit length."""
    vectors = np.random.default_rng(seed).standard_normal((count, length))
    return (vectors / np.linalg.norm(vectors, axis=1)[:, None]).astype(np.float32)


def people_vectors(people, images, length, spread, seed=0):
    """(N, D) float32 unit vectors around a centre for each person, and (N,) the person of each."""
    who = np.repeat(np.arange(people), images)
    vectors = units(people, length, seed)[who] + spread * units(len(who), length, seed + 1)
    return (vectors / np.linalg.norm(vectors, axis=1)[:, None]).astype(np.float32), who


def table_of(vectors, *, paths=None, identities=None, bad=(), metadata=METADATA):
    """A table as ``embed`` writes it; the rows ``bad`` have no embedding."""
    count = len(vectors)
    good = np.array([row not in bad for row in range(count)])
    columns = [
        [str(path) for path in (paths or [f"g/{row}.jpg" for row in range(count)])],
        [vector if usable else None for vector, usable in zip(vectors, good, strict=True)],
        [1.0 if usable else None for usable in good],
        ["ok" if usable else "unusable-image" for usable in good],
        [None if usable else "empty file" for usable in good],
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, IMAGE_SCHEMA, strict=True)]
    table = pa.table(arrays, schema=IMAGE_SCHEMA)
    if identities is not None:
        table = table.append_column("identity", pa.array([str(name) for name in identities]))
    return table.replace_schema_metadata(metadata)


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
