"""Random vectors, tables of them, and a search that compares all pairs."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from benchmarks.engine.identities import IMAGE_SCHEMA

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


def naive(probes, gallery, top, barred=()):
    """Scores and rows by sorting all pairs one by one."""
    scores, rows = [], []
    for number, probe in enumerate(probes):
        ranked = sorted(
            (-np.float32(np.float64(probe) @ np.float64(vector)), row)
            for row, vector in enumerate(gallery)
            if (number, row) not in barred
        )[:top]
        scores.append([-score for score, _ in ranked])
        rows.append([row for _, row in ranked])
    return np.array(scores), np.array(rows)
