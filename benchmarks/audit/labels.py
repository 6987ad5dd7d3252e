"""Wrong labels: images that do not resemble the other images of their identity."""

from __future__ import annotations

import dataclasses

import numpy as np

from benchmarks.audit.centres import Others, identity_sums, own_similarities
from benchmarks.audit.thresholds import LabelMixture, fit_labels

WRONG = 0.5  # probability from which an image is a finding
MIN_SEPARATION = 3.0  # deviations between the images of an identity and strangers; with less no label can be judged
MIN_JUDGED = 50  # images; fewer say nothing about a distribution
_ROUNDS = 4  # centres without the images that were found wrong


@dataclasses.dataclass(frozen=True, kw_only=True)
class Labels:
    """What is known about the labels of N images.

    Attributes:
        similarity: (N,) cosine with the centre of the other images of the identity; nan if there are none.
        wrong: (N,) probability that the label is wrong; 0 where there is nothing to compare with.
        support: (N,) other images of the identity, each counted by the probability that its label is right.
        resembles: (N,) bool, whether the nearest other identity looks like the person.
        sums: (I, D) weighted sums of the identities, in which wrong images do not count.
        model: the fitted mixture; None if too few images can be compared.
    """

    similarity: np.ndarray
    wrong: np.ndarray
    support: np.ndarray
    resembles: np.ndarray
    sums: np.ndarray
    model: LabelMixture | None

    @property
    def strong(self) -> bool:
        """Whether the network tells strangers well enough to judge labels; if not, ``wrong`` is 0."""
        return self.model is not None and self.model.mean >= MIN_SEPARATION


def judge_labels(vectors: np.ndarray, first: np.ndarray, identity: np.ndarray, others: Others) -> Labels:
    """Finds images that are as far from their identity as strangers are.

    Args:
        vectors: (N, D) of unit length, sorted by identity.
        first: (I,) first row of each identity.
        identity: (N,) position of the identity of each image.
        others: the same images and the centres of other identities.
    """
    wrong, model = np.zeros(len(vectors), np.float32), None
    spread = np.maximum(others.spread, 1e-6)
    other = (others.similarity - others.mean) / spread
    for _ in range(_ROUNDS):
        weights = 1 - wrong
        sums = identity_sums(vectors, first, weights)
        similarity = own_similarities(vectors, sums, identity, weights)
        own = (similarity - others.mean) / spread
        judged = np.isfinite(own) & np.isfinite(other)
        if judged.sum() < MIN_JUDGED:
            break
        model = fit_labels(own[judged], other[judged])
        if model.mean < MIN_SEPARATION:
            wrong = np.zeros_like(wrong)
            break
        wrong = np.zeros_like(wrong)
        wrong[judged] = model.wrong(own[judged], other[judged])
    sums = identity_sums(vectors, first, 1 - wrong)
    resembles = np.zeros(len(vectors), bool) if model is None else model.strangers.chance(other) * len(other) < 1
    return Labels(
        similarity=similarity,
        wrong=wrong,
        support=np.bincount(identity, 1 - wrong)[identity] - (1 - wrong),
        resembles=resembles,
        sums=sums,
        model=model,
    )
