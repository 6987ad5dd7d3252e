"""Embeddings as arrays: lengths, rows, means."""

from __future__ import annotations

import numpy as np

_LEAST_LENGTH = 1e-12  # of a vector that is not zero
_AT_ONCE = 1024  # identities


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """(N, D) vectors scaled to length 1, in their own precision; zero stays zero."""
    lengths = np.maximum(vector_lengths(vectors), _LEAST_LENGTH)[:, None]
    return np.divide(vectors, lengths, out=np.empty_like(vectors), casting="same_kind")


def vector_lengths(vectors: np.ndarray) -> np.ndarray:
    """(N,) float64 lengths of (N, D) vectors: squares of large float32 numbers are beyond float32."""
    return np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))


def identity_means(vectors: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """(K, D) float64 mean of the (N, D) vectors of each identity, in the order of the sorted distinct (N,) ids."""
    codes = np.unique(ids, return_inverse=True)[1]
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(codes.max() + 1))
    return np.add.reduceat(vectors[order], starts, dtype=np.float64) / np.bincount(codes)[:, None]


def identity_templates(vectors: np.ndarray, rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """(K, D) unit length ``identity_means`` of ``vectors[rows]``, in their precision; copies some identities at a time.

    Args:
        vectors: (N, D).  rows: (G,) of them.  ids: (G,) int, of the rows.
    """
    order = np.argsort(ids, kind="stable")
    starts = np.append(np.unique(ids[order], return_index=True)[1], len(ids))
    templates = np.empty((len(starts) - 1, vectors.shape[1]), vectors.dtype)
    for first in range(0, len(templates), _AT_ONCE):
        some = order[starts[first] : starts[min(first + _AT_ONCE, len(templates))]]
        templates[first : first + _AT_ONCE] = unit_length(identity_means(vectors[rows[some]], ids[some]))
    return templates


def rows_of(vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """``vectors[rows]``; not copied where the rows follow one another, as those of a gallery mostly do."""
    if len(rows) and (np.diff(rows) == 1).all():
        return vectors[rows[0] : rows[-1] + 1]
    return vectors[rows]
