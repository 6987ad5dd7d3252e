"""Verification and identification metrics: pure functions of scores."""

from __future__ import annotations

import dataclasses

import numpy as np

from shards.arguments import check_argument

THRESHOLDS = np.linspace(-1.0, 1.0, 10001)
BLOCK_BYTES = 1 << 26  # of similarities in memory at a time
TIE = 1e-6  # cosines within this distance count as equal: a matrix product may round equal vectors differently


@dataclasses.dataclass(frozen=True, kw_only=True)
class Roc:
    """A ROC curve that starts at (0, 0).

    Attributes:
        far: (P,) false accept rates, fractions, non-decreasing.
        tar: (P,) true accept rates, fractions, non-decreasing.
        thresholds: (P,) scores, decreasing: those at or above it are accepted; the first one is just above all scores.
    """

    far: np.ndarray
    tar: np.ndarray
    thresholds: np.ndarray

    def tar_at(self, far: np.ndarray | float) -> np.ndarray:
        """TAR at each FAR, of the shape of ``far``, by linear interpolation; on a vertical segment, its upper end."""
        target = np.asarray(far, np.float64)
        left = np.searchsorted(self.far, target * (1 + 1e-12), side="right") - 1
        right = np.minimum(left + 1, len(self.far) - 1)
        step = np.where(right > left, self.far[right] - self.far[left], 1.0)
        share = np.maximum(target - self.far[left], 0.0) / step
        return self.tar[left] + share * (self.tar[right] - self.tar[left])

    def threshold_at(self, far: np.ndarray | float) -> np.ndarray:
        """The lowest score whose acceptance keeps the FAR at or below each given one."""
        return self.thresholds[np.searchsorted(self.far, np.asarray(far) * (1 + 1e-12), side="right") - 1]

    @property
    def auc(self) -> float:
        """Area under the curve by the trapezoid rule: tied pairs count half."""
        return float(np.trapezoid(self.tar, self.far))

    @property
    def eer(self) -> float:
        """Equal error rate: the FAR that equals 1 - TAR, by linear interpolation."""
        total = self.far + self.tar
        right = self._equal_error_row
        share = (1.0 - total[right - 1]) / (total[right] - total[right - 1])
        return float(self.far[right - 1] + share * (self.far[right] - self.far[right - 1]))

    @property
    def eer_threshold(self) -> float:
        """The highest score whose acceptance makes the FAR at least 1 - TAR."""
        return float(self.thresholds[self._equal_error_row])

    @property
    def _equal_error_row(self) -> int:
        return int(np.searchsorted(self.far + self.tar, 1.0 - 1e-12))


def check_values(name: str, array: np.ndarray, kinds: str, *shape: int | None) -> None:
    """Raises: TypeError: no array of such ``kinds`` and ``shape``; None stands for any length but 0."""
    shape = shape or (None,)
    good = isinstance(array, np.ndarray) and array.dtype.kind in kinds and array.ndim == len(shape)
    good = good and all(found and expected in (None, found) for found, expected in zip(array.shape, shape, strict=True))
    lengths = ", ".join("N" if length is None else str(length) for length in shape)
    of = {"f": "floats", "b": "bool", "iu": "whole numbers", "fiu": "numbers"}[kinds]
    check_argument(good, name, array, f"an array of {of} and shape ({lengths}{',' * (len(shape) == 1)})")


class RocSamples:
    """Scores sorted once, for fast ROC curves under many weightings.

    Args:
        scores: (N,) finite.
        genuine: (N,) bool.
        missed: (N,) bool, genuine samples that no threshold accepts; their scores must be the lowest.

    Raises:
        TypeError: an argument has another type or shape.
    """

    def __init__(self, scores: np.ndarray, genuine: np.ndarray, missed: np.ndarray | None = None) -> None:
        check_values("scores", scores, "f")
        check_values("genuine", genuine, "b", len(scores))
        if missed is not None:
            check_values("missed", missed, "b", len(scores))
        self._order = np.argsort(-scores, kind="stable")
        self._genuine = genuine[self._order]
        self._missed = np.zeros(len(scores), bool) if missed is None else missed[self._order]
        ordered = scores[self._order].astype(np.float64)
        self._last = np.append(np.flatnonzero(np.diff(ordered)), len(scores) - 1)  # of equal scores
        self._thresholds = np.append(np.nextafter(ordered[0], np.inf), ordered[self._last])

    def curve(self, weights: np.ndarray | None = None) -> Roc | None:
        """The ROC curve; equal scores form one step.

        Args:
            weights: (N,), how many times each sample counts.

        Returns:
            None if the genuine or the impostor samples have no weight.

        Raises:
            TypeError: ``weights`` have another type or shape.
        """
        if weights is not None:
            check_values("weights", weights, "fiu", len(self._order))
        weights = np.ones(len(self._order)) if weights is None else weights[self._order].astype(np.float64)
        true_accepts = np.cumsum(np.where(self._genuine & ~self._missed, weights, 0.0))[self._last]
        false_accepts = np.cumsum(np.where(self._genuine, 0.0, weights))[self._last]
        genuine_weight = weights[self._genuine].sum()
        if not genuine_weight or not false_accepts[-1]:
            return None
        return Roc(
            far=np.append(0.0, false_accepts / false_accepts[-1]),
            tar=np.append(0.0, true_accepts / genuine_weight),
            thresholds=self._thresholds,
        )


def fold_decisions(scores: np.ndarray, genuine: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """K-fold verification: whether each pair is classified correctly at the threshold that is best on the other folds.

    Thresholds are 10001 values in -1..1; of equally good ones the largest is used. A score at or above the threshold
    is a match.

    Args:
        scores: (N,) in -1..1.
        genuine: (N,) bool.
        folds: (N,) int. Memory does not depend on their number.

    Returns:
        (N,) bool.

    Raises:
        TypeError: an argument has another type or shape.

    Source: LFW's protocol (Huang et al., 2007), thresholds as Lai & Lam, APSIPA ASC 2021.
    """
    check_values("scores", scores, "f")
    check_values("genuine", genuine, "b", len(scores))
    check_values("folds", folds, "iu", len(scores))
    order = np.argsort(folds, kind="stable")
    correct = _correct_counts(scores, genuine)
    right = np.empty(len(scores), bool)
    for rows in np.split(order, np.flatnonzero(np.diff(folds[order])) + 1):
        other_folds = correct - _correct_counts(scores[rows], genuine[rows])
        best = len(THRESHOLDS) - 1 - np.argmax(other_folds[::-1])
        right[rows] = (scores[rows] >= THRESHOLDS[best]) == genuine[rows]
    return right


def _correct_counts(scores: np.ndarray, genuine: np.ndarray) -> np.ndarray:
    """(thresholds,) number of correct decisions at each threshold."""
    matches, impostors = np.sort(scores[genuine]), np.sort(scores[~genuine])
    false_rejects = np.searchsorted(matches, THRESHOLDS, side="left")
    true_rejects = np.searchsorted(impostors, THRESHOLDS, side="left")
    return len(matches) - false_rejects + true_rejects


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranking:
    """Result of searching a gallery with P probes; each field is a (P,) array.

    A mate is a gallery image of the probe's identity, an impostor any other gallery image.

    Attributes:
        rank: rank of the best mate, from 1. An impostor of equal score (within ``TIE``) ranks ahead of it.
        precision: average precision over all mates.
        mate: gallery row of the best mate.
        impostor: gallery row of the best impostor.
        mate_score: cosine of the best mate.
        impostor_score: cosine of the best impostor.
    """

    rank: np.ndarray
    precision: np.ndarray
    mate: np.ndarray
    impostor: np.ndarray
    mate_score: np.ndarray
    impostor_score: np.ndarray


def rank_gallery(probes: np.ndarray, probe_ids: np.ndarray, gallery: np.ndarray, gallery_ids: np.ndarray) -> Ranking:
    """Ranks the gallery for each probe, in blocks of bounded memory.

    A probe without a mate in the gallery has rank 0, precision 0 and mate score -1.

    Args:
        probes: (P, D) unit length.
        probe_ids: (P,) int, -1 for a probe without a mate.
        gallery: (G, D) unit length.
        gallery_ids: (G,) int, -1 for an image that is nobody's mate.

    Raises:
        TypeError: an argument has another type or shape; there are no probes or no gallery.
    """
    check_values("gallery", gallery, "f", None, None)
    check_values("probes", probes, "f", None, gallery.shape[1])
    check_values("probe_ids", probe_ids, "iu", len(probes))
    check_values("gallery_ids", gallery_ids, "iu", len(gallery))
    parts: dict[str, list[np.ndarray]] = {field.name: [] for field in dataclasses.fields(Ranking)}
    block_size = max(1, BLOCK_BYTES // (8 * len(gallery)))
    for start in range(0, len(probes), block_size):
        block = slice(start, start + block_size)
        scores = probes[block] @ gallery.T
        is_mate = (probe_ids[block, None] == gallery_ids) & (probe_ids[block, None] != -1)
        has_mate, rows = is_mate.any(1), np.arange(len(scores))
        mate_scores, impostor_scores = np.where(is_mate, scores, -np.inf), np.where(is_mate, -np.inf, scores)
        mate, impostor = mate_scores.argmax(1), impostor_scores.argmax(1)
        parts["mate"].append(mate)
        parts["impostor"].append(impostor)
        parts["mate_score"].append(np.where(has_mate, scores[rows, mate], -1.0))
        parts["impostor_score"].append(scores[rows, impostor])
        ahead = (impostor_scores >= scores[rows, mate][:, None] - TIE).sum(1)
        parts["rank"].append(np.where(has_mate, ahead + 1, 0))
        parts["precision"].append(
            np.array([average_precision(row[mates], row[~mates]) for row, mates in zip(scores, is_mate, strict=True)])
        )
    return Ranking(**{name: np.concatenate(values) for name, values in parts.items()})


def average_precision(mates: np.ndarray, impostors: np.ndarray) -> float:
    """Area under the precision-recall curve by the trapezoid rule, with precision 1 at recall 0; 0 without mates.

    Args:
        mates: (M,) scores of the mates.
        impostors: (K,) scores of the impostors; at equal scores (within ``TIE``) they rank ahead.

    Raises:
        TypeError: an argument has another type or shape.

    Source: TinyFace's evaluation code (Cheng et al., ACCV 2018), which follows the Oxford buildings benchmark.
    """
    for name, scores in (("mates", mates), ("impostors", impostors)):
        check_argument(isinstance(scores, np.ndarray) and scores.ndim == 1, name, scores, "a (N,) array")
    if not len(mates):
        return 0.0
    mates = np.sort(mates)[::-1]
    relevant = np.sort(impostors[impostors >= mates[-1] - TIE])
    hits = np.arange(1, len(mates) + 1)
    ranks = hits + len(relevant) - np.searchsorted(relevant, mates - TIE, side="left")
    precision_before = np.where(ranks > 1, (hits - 1) / np.maximum(ranks - 1, 1), 1.0)
    return float(((hits / ranks + precision_before) / 2).mean())
