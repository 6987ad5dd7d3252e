"""Identities that look like one person, and people of a benchmark in the training set."""

from __future__ import annotations

import dataclasses

import numpy as np

from benchmarks.audit.centres import row_blocks
from benchmarks.audit.thresholds import Extremes, discoveries
from benchmarks.scoring.vectors import unit_length
from pipeline.progress import Progress

FALSE_PAIRS, FALSE_PEOPLE = 0.05, 0.01  # of the findings, expected; the latter are excluded
MIN_IDENTITIES = 20  # fewer say nothing about a distribution
OWN_QUANTILE, MAX_COSINE = 0.01, 1 - 1e-6
MAX_SAMPLED = 2000  # identities
MIN_HALVED = 4  # images of an identity that is cut in halves
_SEED = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Matches:
    """P pairs that look like one person, each once.

    Attributes:
        pairs: (P, 2) positions; the first is of what was looked up.
        similarity: (P,) cosine of their centres.
        threshold: the smallest cosine that is a finding; inf if there is none, nan if there is too little to judge.
    """

    pairs: np.ndarray
    similarity: np.ndarray
    threshold: float


NOTHING = Matches(pairs=np.empty((0, 2), int), similarity=np.empty(0), threshold=float("nan"))


def nearest_centres(
    probes: np.ndarray, centres: np.ndarray, own: np.ndarray, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """The most similar centre of each of P probes.

    Args:
        probes: (P, D) of unit length.
        centres: (I, D) of unit length.
        own: (P,) position of the centre that is left out; -1 for none.

    Returns:
        (P,) its position.
        (P,) float32 its cosine.
    """
    nearest, similarity = np.empty(len(probes), int), np.empty(len(probes), np.float32)
    for rows in row_blocks(len(probes), len(centres)):
        cosines = probes[rows] @ centres.T
        left_out = np.flatnonzero(own[rows] >= 0)
        cosines[left_out, own[rows][left_out]] = -2
        nearest[rows] = cosines.argmax(1)
        similarity[rows] = cosines[np.arange(len(cosines)), nearest[rows]]
        progress.update(len(cosines))
    return nearest, similarity


def same_people(sums: np.ndarray, halves: np.ndarray) -> Matches:
    """Pairs of identities whose centres are more similar than the nearest strangers are.

    Args:
        sums: (I, D) sums of the vectors of the identities.
        halves: (H,) cosines of the halves of identities, see ``half_similarities``.
    """
    if len(sums) < MIN_IDENTITIES:
        return NOTHING
    centres, positions = unit_length(sums), np.arange(len(sums))
    with Progress("identities", len(sums), "identities") as progress:
        nearest, similarity = nearest_centres(centres, centres, positions, progress)
    found, threshold = _outstanding(similarity, similarity, halves, FALSE_PAIRS)
    pairs = np.sort(np.stack([positions, nearest], 1)[found], axis=1)
    pairs, rows = np.unique(pairs, axis=0, return_index=True)
    return Matches(pairs=pairs, similarity=similarity[found][rows], threshold=threshold)


def known_people(probes: np.ndarray, sums: np.ndarray, known: Lookups) -> Matches:
    """People of a benchmark who are nearer to an identity of the training set than strangers are.

    Args:
        probes: (P, D) sums of the vectors of each person of the benchmark.
        sums: (I, D) sums of the identities of the training set.
        known: similarities of people of the set.
    """
    if len(sums) < MIN_IDENTITIES:
        return NOTHING
    with Progress("people", len(probes), "people") as progress:
        nowhere = np.full(len(probes), -1)
        nearest, similarity = nearest_centres(unit_length(probes), unit_length(sums), nowhere, progress)
    found, threshold = _outstanding(similarity, known.strangers, known.own, FALSE_PEOPLE)
    pairs = np.stack([np.flatnonzero(found), nearest[found]], 1)
    return Matches(pairs=pairs, similarity=similarity[found], threshold=threshold)


def _outstanding(
    similarity: np.ndarray, strangers: np.ndarray, own: np.ndarray, false_share: float
) -> tuple[np.ndarray, float]:
    """Which similarities are findings, and the smallest one that is.

    Args:
        strangers: (S,) similarities with the nearest stranger. Their extremes are modelled after Fisher's transform, because
            cosines are cut off at 1.
        own: (H,) similarities of one person with the same one; all but the lowest are reached by a finding.
    """
    chances = Extremes.fit(_fisher(strangers)).chance(_fisher(similarity))
    found = discoveries(chances, false_share)
    if len(own):
        found &= similarity >= np.quantile(own, OWN_QUANTILE)
    return found, float(similarity[found].min()) if found.any() else float("inf")


def _fisher(cosines: np.ndarray) -> np.ndarray:
    return np.arctanh(np.clip(cosines, -MAX_COSINE, MAX_COSINE))


def half_similarities(vectors: np.ndarray, first: np.ndarray, count: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(H,) cosines of the centres of two random halves of some identities: how similar one person is."""
    rng, found = np.random.default_rng(_SEED), []
    large = np.flatnonzero(count >= MIN_HALVED)
    for identity in rng.choice(large, min(MAX_SAMPLED, len(large)), replace=False).tolist():
        rows = first[identity] + rng.permutation(count[identity])
        block = vectors[rows].astype(np.float32) * weights[rows, None]
        one, other = unit_length(np.stack([block[::2].sum(0), block[1::2].sum(0)]))
        found.append(float(one @ other))
    return np.array(found)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lookups:
    """How similar people of the set are to its identities when they are looked up as a benchmark shows them.

    Attributes:
        strangers: (S,) cosines with the nearest identity that is not theirs.
        own: (O,) cosines with the other images of their own identity.
    """

    strangers: np.ndarray
    own: np.ndarray


def look_up(vectors: np.ndarray, first: np.ndarray, count: np.ndarray, sums: np.ndarray, sizes: np.ndarray) -> Lookups:
    """Looks up some people of the set in it.

    Args:
        sums: (I, D) sums of the vectors of the identities.
        sizes: (P,) numbers of images of the people of the benchmark; as many images are taken of each person of the set.
    """
    rng = np.random.default_rng(_SEED)
    chosen = np.sort(rng.choice(len(first), min(MAX_SAMPLED, len(first)), replace=False))
    probes, own = np.empty((len(chosen), vectors.shape[1]), np.float32), []
    for place, identity in enumerate(chosen.tolist()):
        total = int(count[identity])
        size = min(int(rng.choice(sizes)), max(total - 1, 1))
        block = vectors[first[identity] + rng.permutation(total)].astype(np.float32)
        probes[place] = block[:size].sum(0)
        if size < total:
            one, others = unit_length(np.stack([probes[place], block[size:].sum(0)]))
            own.append(float(one @ others))
    with Progress("strangers", len(chosen), "identities") as progress:
        strangers = nearest_centres(unit_length(probes), unit_length(sums), chosen, progress)[1]
    return Lookups(strangers=strangers, own=np.array(own))
