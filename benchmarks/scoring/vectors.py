"""Embeddings as arrays: norms and templates."""

from __future__ import annotations

import numpy as np

MIN_NORM = 1e-12  # shorter vectors count as zero
CHUNK_IDENTITIES = 1024


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """(N, D) vectors scaled to length 1, in the same dtype; zero vectors stay zero."""
    norms = np.maximum(vector_norms(vectors), MIN_NORM)[:, None]
    return np.divide(vectors, norms, out=np.empty_like(vectors), casting="same_kind")


def vector_norms(vectors: np.ndarray) -> np.ndarray:
    """(N,) norms of (N, D) vectors in float64, because squares of large values overflow float32."""
    return np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))


def identity_templates(vectors: np.ndarray, rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """(K, D) unit-length means of the vectors of each identity, in the dtype of ``vectors``.

    Works in chunks of identities, so that ``vectors[rows]`` is never copied as a whole.

    Args:
        vectors: (N, D).
        rows: (G,) rows of ``vectors``.
        ids: (G,) int identities of ``rows``.
    """
    order = np.argsort(ids, kind="stable")
    starts, counts = np.unique(ids[order], return_index=True, return_counts=True)[1:]
    templates = np.empty((len(starts), vectors.shape[1]), vectors.dtype)
    for first in range(0, len(starts), CHUNK_IDENTITIES):
        chunk = slice(first, first + CHUNK_IDENTITIES)
        members = order[starts[first] : starts[chunk][-1] + counts[chunk][-1]]
        sums = np.add.reduceat(vectors[rows[members]], starts[chunk] - starts[first], dtype=np.float64)
        templates[chunk] = unit_length(sums / counts[chunk, None])
    return templates


def rows_of(vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """``vectors[rows]``, as a view if the rows are consecutive (most galleries are)."""
    if len(rows) and (np.diff(rows) == 1).all():
        return vectors[rows[0] : rows[-1] + 1]
    return vectors[rows]
