"""Embeddings as arrays: norms, means, templates."""

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


def identity_means(vectors: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """(K, D) float64 mean of the (N, D) vectors of each identity, ordered by the sorted distinct (N,) ids."""
    codes = np.unique(ids, return_inverse=True)[1]
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(codes.max() + 1))
    return np.add.reduceat(vectors[order], starts, dtype=np.float64) / np.bincount(codes)[:, None]


def identity_templates(vectors: np.ndarray, rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """(K, D) unit-length means of the vectors of each identity, in the dtype of ``vectors``.

    Works in chunks of identities, so that ``vectors[rows]`` is never copied as a whole.

    Args:
        vectors: (N, D).
        rows: (G,) rows of ``vectors``.
        ids: (G,) int identities of ``rows``.
    """
    order = np.argsort(ids, kind="stable")
    starts = np.append(np.unique(ids[order], return_index=True)[1], len(ids))
    templates = np.empty((len(starts) - 1, vectors.shape[1]), vectors.dtype)
    for first in range(0, len(templates), CHUNK_IDENTITIES):
        chunk = order[starts[first] : starts[min(first + CHUNK_IDENTITIES, len(templates))]]
        means = identity_means(vectors[rows[chunk]], ids[chunk])
        templates[first : first + CHUNK_IDENTITIES] = unit_length(means)
    return templates


def rows_of(vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """``vectors[rows]``, as a view if the rows are consecutive (most galleries are)."""
    if len(rows) and (np.diff(rows) == 1).all():
        return vectors[rows[0] : rows[-1] + 1]
    return vectors[rows]
