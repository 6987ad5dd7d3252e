"""Losses on one batch that concatenates the views of all resolutions.

Criteria take the logits of a head, metric losses take features. Criteria are exact if ranks share the classes.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from model.cosine import cosines
from model.heads.rows import check_batch
from model.heads.scores import ClassScores
from model.sharding import all_reduce_sum, log_sum_exp
from shards.arguments import check_argument, check_number, check_whole
from shards.messages import counted


def cross_entropy(logits: ClassScores) -> torch.Tensor:
    """(N,) cross-entropy of each image, the same on every rank. Raises: TypeError: ``logits`` are none."""
    check_argument(isinstance(logits, ClassScores), "logits", logits, "ClassScores, as a head returns")
    if logits.group is None:
        return functional.cross_entropy(logits.values, logits.columns, reduction="none")
    peak, rest = log_sum_exp(logits.values, logits.group)
    target = (logits.target() - peak).where(logits.columns >= 0, 0.0)
    return rest - all_reduce_sum(target, logits.group)


def focal(logits: ClassScores, gamma: float = 2.0) -> torch.Tensor:
    """(N,) focal loss of each image: ``-(1 - p)^gamma log p``, with p the probability of the target class.

    Source: Lin et al., Focal loss for dense object detection, ICCV 2017, equation 4.
    """
    check_number("gamma", gamma)
    losses = cross_entropy(logits)
    complement = -torch.expm1(-losses)  # 1 - p
    return complement.clamp_min(torch.finfo(complement.dtype).tiny) ** gamma * losses  # gamma < 1: no gradient at 0


def view_means(losses: torch.Tensor, views: int) -> torch.Tensor:
    """Mean loss of each view: (V*b,), view after view -> (V,)."""
    return losses.reshape(views, -1).mean(1)


def hardest_triplet(features: torch.Tensor, labels: torch.Tensor, margin: float = 1.0) -> torch.Tensor:
    """Triplet loss with the hardest positive and negative of each anchor: a mean over anchors, shape ().

    The loss of an anchor is ``max(0, margin + hardest positive - hardest negative)``, with distance 1 - cosine. Its
    positives are all other images of its identity, at any resolution. Anchors without a positive or a negative add 0.

    Args:
        features: (N, D), of all views.
        labels: (N,) int64.
        margin: in units of 1 - cosine.

    Raises:
        TypeError: ``features`` or ``labels`` have another type or shape.

    Source: Hermans et al., In defense of the triplet loss, 2017; over four resolutions: Lai & Lam, ICIP 2021.
    """
    check_batch(features, labels)
    check_number("margin", margin)
    same = labels[:, None] == labels[None, :]
    return _hardest(1.0 - cosines(features, features), same, _others(labels), margin).mean()


def octuplet(features: torch.Tensor, labels: torch.Tensor, views: int, margin: float = 0.5) -> torch.Tensor:
    """Sum of four hardest-triplet losses within and across resolutions, shape ().

    The four are HR-HR, HR-LR, LR-HR and LR-LR. HR-LR, for example, takes anchors from the high-resolution view, and
    positives and negatives from a low-resolution one. Each is a mean over anchors as in ``hardest_triplet``. The paper
    has one LR view; with several, the loss is the mean over pairs of HR and one LR view.

    Across views, the image of the anchor's identity is a positive, because here it is another image. (In the paper the
    views are one image, and it is excluded.) Anchors without a positive or a negative add 0; with one image per identity
    and view, these are all anchors of HR-HR and LR-LR.

    Args:
        features: (V*b, D), view after view, HR first; V > 1.
        labels: (V*b,) int64.
        views: V.
        margin: in units of 1 - cosine.

    Raises:
        TypeError: ``features`` or ``labels`` have another type or shape.
        ValueError: there are fewer than two views, or N is no multiple of their number.

    Source: Knoche et al., Octuplet loss: make face recognition robust to image resolution, FG 2023.
    """
    check_batch(features, labels)
    check_number("margin", margin)
    views = check_whole("views", views, 2)
    if len(labels) % views:
        raise ValueError(f"{counted(len(labels), 'image')} in {views} views, expected as many in each")
    distances = 1.0 - cosines(features, features)
    size = len(labels) // views
    parts = [slice(view * size, (view + 1) * size) for view in range(views)]
    same, others = labels[:, None] == labels[None, :], _others(labels)

    def triplets(anchors: slice, candidates: slice) -> torch.Tensor:
        block = (anchors, candidates)
        return _hardest(distances[block], same[block], others[block], margin).mean()

    high, *low = parts
    across = [triplets(high, part) + triplets(part, high) + triplets(part, part) for part in low]
    return triplets(high, high) + torch.stack(across).mean()


def _others(labels: torch.Tensor) -> torch.Tensor:
    """(N, N) bool, False for an image and itself."""
    return ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)


def _hardest(distances: torch.Tensor, same: torch.Tensor, others: torch.Tensor, margin: float) -> torch.Tensor:
    """(A, C) distances of anchors to candidates, same identities and other images (bool) -> (A,) triplet losses."""
    hardest_positive = distances.masked_fill(~(same & others), -torch.inf).amax(1)
    hardest_negative = distances.masked_fill(same, torch.inf).amin(1)
    return (margin + hardest_positive - hardest_negative).clamp_min(0.0)
