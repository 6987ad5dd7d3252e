"""The best gallery rows of each probe, by an exact product in blocks.

float32 products choose candidates, within a bound of their rounding errors; the candidates' scores are then computed in
float64 and rounded to float32. So neither the size of the blocks nor the library or number of threads of the products
changes a result.
"""

from __future__ import annotations

import numpy as np

from benchmarks.search.table import UNIT_TOLERANCE

PROBE_ROWS = 1024  # in one product
RESCORED_PAIRS = 4096  # at a time
CROWD = 8  # times the wanted matches: more candidates of a block than this are thinned out first
BELOW_EVERY_SCORE = np.float32(-2)


class TopMatches:
    """The best matches so far; blocks of the gallery are added in any order.

    Attributes:
        scores: (P, K) float32 cosines, best first; -inf where there are fewer matches.
        rows: (P, K) int64 rows of the gallery; of equal scores the first row comes first. -1 where there are fewer.
    """

    def __init__(self, probes: np.ndarray, top: int) -> None:
        """``probes`` are (P, D) float32 of unit length."""
        self._probes = probes
        self._products = np.empty((0, 0), np.float32)  # kept: fresh memory costs time
        self.scores = np.full((len(probes), top), -np.inf, np.float32)
        self.rows = np.full((len(probes), top), -1, np.int64)

    def add(self, vectors: np.ndarray, rows: np.ndarray, barred_probes: np.ndarray, barred_columns: np.ndarray) -> None:
        """Adds gallery vectors.

        Args:
            vectors: (N, D) float32 of unit length.
            rows: (N,) their row numbers.
            barred_probes: (E,) probes that are not compared with the vectors ``barred_columns``, (E,).
        """
        for start in range(0, len(self._probes), PROBE_ROWS):
            tile = slice(start, start + PROBE_ROWS)
            products = self._multiply(self._probes[tile], vectors)
            inside = (barred_probes >= start) & (barred_probes < start + PROBE_ROWS)
            products[barred_probes[inside] - start, barred_columns[inside]] = -np.inf
            probes, columns = self._candidates(products, tile)
            for first in range(0, len(probes), RESCORED_PAIRS):
                some = slice(first, first + RESCORED_PAIRS)
                scores = pair_scores(self._probes[start + probes[some]], vectors[columns[some]])
                self._merge(start + probes[some], scores, rows[columns[some]])

    def _multiply(self, probes: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        shape = (len(probes), len(vectors))
        if self._products.shape != shape:
            self._products = np.empty(shape, np.float32)
        return np.matmul(probes, vectors.T, out=self._products)

    def _candidates(self, products: np.ndarray, tile: slice) -> tuple[np.ndarray, np.ndarray]:
        """Probe and column of all products that may be among the best."""
        top = self.scores.shape[1]
        error = rounding_error(self._probes.shape[1])
        floors = np.maximum(self.scores[tile, -1] - error, BELOW_EVERY_SCORE)
        candidates = products >= floors[:, None]
        crowded = np.flatnonzero(np.count_nonzero(candidates, axis=1) > CROWD * top)
        if len(crowded):
            best = np.partition(products[crowded], products.shape[1] - top, axis=1)[:, -top]
            floors = np.maximum(floors[crowded], best - 2 * error)
            candidates[crowded] = products[crowded] >= floors[:, None]
        # much faster than nonzero of two dimensions
        return np.divmod(np.flatnonzero(candidates), products.shape[1])

    def _merge(self, probes: np.ndarray, scores: np.ndarray, rows: np.ndarray) -> None:
        top = self.scores.shape[1]
        touched = np.unique(probes)
        probes = np.concatenate([np.repeat(touched, top), probes])
        scores = np.concatenate([self.scores[touched].ravel(), scores])
        rows = np.concatenate([self.rows[touched].ravel(), rows])
        order = np.lexsort((rows, -scores, probes))
        probes = probes[order]
        places = np.arange(len(probes)) - np.searchsorted(probes, probes)
        order, probes, places = order[places < top], probes[places < top], places[places < top]
        self.scores[probes, places], self.rows[probes, places] = scores[order], rows[order]


def rounding_error(length: int) -> np.float32:
    """Largest difference of a float32 dot product of two unit vectors, summed in any order, from the rounded true value.

    Source: Higham, Accuracy and Stability of Numerical Algorithms, section 3.1: n u / (1 - n u) times the norms.
    """
    terms = (length + 4) * 2.0**-24
    return np.float32(terms / (1 - terms) * (1 + UNIT_TOLERANCE) ** 2)


def pair_scores(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N,) float32 dot products of (N, D) float32 vectors, summed in float64."""
    return np.multiply(first, second, dtype=np.float64).sum(axis=1).astype(np.float32)
