"""Verification and identification metrics: pure functions of scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

_THRESHOLDS = np.linspace(-1.0, 1.0, 10001)
_BLOCK_BYTES = 1 << 26  # of similarities held at a time
TIE = 1e-6  # cosines no further apart are equal: a matrix product rounds the same two vectors differently by place


@dataclasses.dataclass(frozen=True, kw_only=True)
class Roc:
    """A ROC curve from (0, 0): (P,) false and true accept rates, fractions, both non-decreasing."""

    far: np.ndarray
    tar: np.ndarray

    def tar_at(self, far: np.ndarray | float) -> np.ndarray:
        """TAR by linear interpolation at each FAR; where the curve is vertical, its upper end."""
        wanted = np.asarray(far, np.float64)
        point = np.searchsorted(self.far, wanted * (1 + 1e-12), side="right") - 1
        ahead = np.minimum(point + 1, len(self.far) - 1)
        step = np.where(ahead > point, self.far[ahead] - self.far[point], 1.0)
        share = np.maximum(wanted - self.far[point], 0.0) / step
        return self.tar[point] + share * (self.tar[ahead] - self.tar[point])

    @property
    def auc(self) -> float:
        """Area under the curve, trapezoid rule: tied pairs count half."""
        return float(np.trapezoid(self.tar, self.far))


class RocSamples:
    """Sorts scores once, so that curves under many weightings are cheap.

    Args:
        scores: (N,) finite.  genuine: (N,) bool.
        lost: (N,) bool, genuine samples that no threshold accepts; they have the lowest scores.
    """

    def __init__(self, scores: np.ndarray, genuine: np.ndarray, lost: np.ndarray | None = None) -> None:
        self._order = np.argsort(-scores, kind="stable")
        self._genuine = genuine[self._order]
        self._lost = np.zeros(len(scores), bool) if lost is None else lost[self._order]
        self._last = np.append(np.flatnonzero(np.diff(scores[self._order])), len(scores) - 1)

    def curve(self, weights: np.ndarray | None = None) -> Roc | None:
        """The ROC; pairs of equal score make one step. (N,) weights count a pair several times; None if a kind has no weight."""
        weights = np.ones(len(self._order)) if weights is None else weights[self._order].astype(np.float64)
        accepted = np.cumsum(np.where(self._genuine & ~self._lost, weights, 0.0))[self._last]
        mistaken = np.cumsum(np.where(self._genuine, 0.0, weights))[self._last]
        total = weights[self._genuine].sum()
        if not total or not mistaken[-1]:
            return None
        return Roc(far=np.append(0.0, mistaken / mistaken[-1]), tar=np.append(0.0, accepted / total))


def fold_decisions(scores: np.ndarray, genuine: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """(N,) bool: was each pair judged right, at the threshold that is best on all folds but its own.

    Args:
        scores: (N,) in -1..1.  genuine: (N,) bool.  folds: (N,) int, 0..K-1.

    Thresholds are 10001 values in -1..1, ties go to the largest; a score at or above it is a match.

    Source: LFW's protocol (Huang et al., 2007), thresholds as Lai & Lam, ICIP 2021.
    """
    correct = np.stack([_correct(scores[folds == fold], genuine[folds == fold]) for fold in range(folds.max() + 1)])
    others = correct.sum(0) - correct
    best = len(_THRESHOLDS) - 1 - np.argmax(others[:, ::-1], axis=1)
    return (scores >= _THRESHOLDS[best][folds]) == genuine


def _correct(scores: np.ndarray, genuine: np.ndarray) -> np.ndarray:
    """(thresholds,) number of right decisions at each threshold."""
    matches, others = np.sort(scores[genuine]), np.sort(scores[~genuine])
    rejected_matches = np.searchsorted(matches, _THRESHOLDS, side="left")
    rejected_others = np.searchsorted(others, _THRESHOLDS, side="left")
    return len(matches) - rejected_matches + rejected_others


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranking:
    """How a gallery answers (P,) probes; scores are cosines.

    Attributes:
        rank: of the best mate, from 1; an impostor of equal score, to ``TIE``, counts as ahead of it.
        precision: average precision over all mates.
        mate, rival: gallery rows of the best mate and of the best of the others.
        mate_score, rival_score: their scores.
    """

    rank: np.ndarray
    precision: np.ndarray
    mate: np.ndarray
    rival: np.ndarray
    mate_score: np.ndarray
    rival_score: np.ndarray


def rank_gallery(probes: np.ndarray, probe_ids: np.ndarray, gallery: np.ndarray, gallery_ids: np.ndarray) -> Ranking:
    """Ranks a gallery for each probe, block after block in bounded memory.

    Args:
        probes: (P, D) unit length.  probe_ids: (P,) int, -1 for a probe without a mate.
        gallery: (G, D) unit length.  gallery_ids: (G,) int, other than -1 where it may be a mate.

    A probe without a mate in the gallery has rank 0, precision 0 and mate score -1.
    """
    parts: dict[str, list[np.ndarray]] = {field.name: [] for field in dataclasses.fields(Ranking)}
    for block, scores in _blocks(probes, gallery):
        mates = (probe_ids[block, None] == gallery_ids) & (probe_ids[block, None] != -1)
        found, rows = mates.any(1), np.arange(len(scores))
        own, others = np.where(mates, scores, -np.inf), np.where(mates, -np.inf, scores)
        mate, rival = own.argmax(1), others.argmax(1)
        parts["mate"].append(mate)
        parts["rival"].append(rival)
        parts["mate_score"].append(np.where(found, scores[rows, mate], -1.0))
        parts["rival_score"].append(scores[rows, rival])
        ahead = (others >= scores[rows, mate][:, None] - TIE).sum(1)
        parts["rank"].append(np.where(found, ahead + 1, 0))
        parts["precision"].append(
            np.array([average_precision(row[mine], row[~mine]) for row, mine in zip(scores, mates, strict=True)])
        )
    return Ranking(**{name: np.concatenate(values) for name, values in parts.items()})


def _blocks(probes: np.ndarray, gallery: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Similarities of some probes at a time with the whole gallery."""
    size = max(1, _BLOCK_BYTES // (8 * len(gallery)))
    for start in range(0, len(probes), size):
        block = slice(start, start + size)
        yield block, probes[block] @ gallery.T


def average_precision(mates: np.ndarray, others: np.ndarray) -> float:
    """Area under precision over recall by the trapezoid rule, the first precision being 1; 0 without mates.

    Args:
        mates: (M,) scores of the right gallery images.
        others: (K,) of the wrong ones; equal scores, to ``TIE``, rank ahead.

    Source: TinyFace's evaluation (Cheng et al., ACCV 2018), the rule of the Oxford buildings benchmark.
    """
    if not len(mates):
        return 0.0
    ordered = np.sort(mates)[::-1]
    near = np.sort(others[others >= ordered[-1] - TIE])
    hits = np.arange(1, len(ordered) + 1)
    ranks = hits + len(near) - np.searchsorted(near, ordered - TIE, side="left")
    before = np.where(ranks > 1, (hits - 1) / np.maximum(ranks - 1, 1), 1.0)
    return float(((hits / ranks + before) / 2).mean())
