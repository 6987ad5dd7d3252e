"""The losses of the deep Siamese network, on one concatenated batch of all resolutions.

Criteria take a head's logits, metric losses the features. Each criterion is exact over all ranks that share the classes.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from model.cosine import cosines
from model.heads.scores import ClassScores
from model.sharding import log_sum_exp, total


def cross_entropy(logits: ClassScores) -> torch.Tensor:
    """(N,) cross-entropies, the same on every rank."""
    if logits.group is None:
        return functional.cross_entropy(logits.values, logits.columns, reduction="none")
    peak, rest = log_sum_exp(logits.values, logits.group)
    own = (logits.target() - peak).where(logits.columns >= 0, 0.0)
    return rest - total(own, logits.group)


def focal(logits: ClassScores, gamma: float = 2.0) -> torch.Tensor:
    """(N,) focal losses ``-(1 - p)^gamma log p``, p the probability of the own class; the cross-entropy if gamma is 0.

    Source: Lin et al., Focal loss for dense object detection, ICCV 2017, equation 4.
    """
    losses = cross_entropy(logits)
    doubt = -torch.expm1(-losses)
    return doubt.clamp_min(torch.finfo(doubt.dtype).tiny) ** gamma * losses  # 0 has no slope where gamma < 1


def view_means(losses: torch.Tensor, views: int) -> torch.Tensor:
    """(V,) mean loss of each view; ``losses`` (V*b,) lie view after view."""
    return losses.reshape(views, -1).mean(1)


def hardest_triplet(features: torch.Tensor, labels: torch.Tensor, margin: float = 1.0) -> torch.Tensor:
    """Mean over anchors of ``max(0, margin + hardest positive - hardest negative)``, distance 1 - cosine.

    Args:
        features: (N, D), of all views together.  labels: (N,).

    An anchor's positives are all other images of its identity, at whatever resolution; one without a positive
    or without a negative adds nothing.

    Source: Hermans et al., In defense of the triplet loss, 2017; over four resolutions: Lai & Lam, ICIP 2021.
    """
    same = labels[:, None] == labels[None, :]
    return _hardest(1.0 - cosines(features, features), same, _others(labels), margin).mean()


def octuplet(features: torch.Tensor, labels: torch.Tensor, views: int, margin: float = 0.5) -> torch.Tensor:
    """Hardest triplets within and across resolutions: the sum of four, by where anchor and the other two come from.

    They are HR-HR, HR-LR, LR-HR and LR-LR, where e.g. HR-LR has anchors of the first view, positives and negatives of
    a later one; each is a mean over anchors of ``max(0, margin + hardest positive - hardest negative)``, distance
    1 - cosine. The paper has one LR view. Of several, each makes an octuplet with HR, and the loss is their mean.

    Args:
        features: (V*b, D), view after view, HR first, V > 1.  labels: (V*b,).

    Across views, an anchor's own place counts as a positive: our views of an identity are different images (the
    authors' are one image degraded, and leave it out). An anchor without a positive or without a negative adds nothing;
    with one image per identity and view, that is all of HR-HR and LR-LR.

    Source: Knoche et al., Octuplet loss: make face recognition robust to image resolution, FG 2023.
    """
    distances = 1.0 - cosines(features, features)
    size = len(labels) // views
    parts = [slice(view * size, (view + 1) * size) for view in range(views)]
    same, others = labels[:, None] == labels[None, :], _others(labels)

    def triplets(anchors: slice, rest: slice) -> torch.Tensor:
        at = (anchors, rest)
        return _hardest(distances[at], same[at], others[at], margin).mean()

    high, *low = parts
    across = [triplets(high, part) + triplets(part, high) + triplets(part, part) for part in low]
    return triplets(high, high) + torch.stack(across).mean()


def _others(labels: torch.Tensor) -> torch.Tensor:
    return ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)


def _hardest(distances: torch.Tensor, same: torch.Tensor, others: torch.Tensor, margin: float) -> torch.Tensor:
    """(A,) triplet losses of anchors (rows): their farthest column that is the same but another, their nearest that is not."""
    hardest_positive = distances.masked_fill(~(same & others), -torch.inf).amax(1)
    hardest_negative = distances.masked_fill(same, torch.inf).amin(1)
    return (margin + hardest_positive - hardest_negative).clamp_min(0.0)
