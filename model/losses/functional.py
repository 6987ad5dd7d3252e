"""Losses on one batch that concatenates the views of all resolutions.

Criteria take the logits of a head, metric losses take features. Criteria are exact if ranks share the classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch.nn import functional

from model.cosine import cosines, full_precision
from model.heads.rows import check_batch
from model.heads.scores import ClassScores
from model.sharding import all_reduce_sum, log_sum_exp
from shards.arguments import check_argument, check_number, check_whole
from shards.messages import counted


def cross_entropy(logits: ClassScores) -> torch.Tensor:
    """(N,) cross-entropy of each image, the same on every rank. Raises: TypeError: ``logits`` is not ``ClassScores``."""
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
    return focal_of(cross_entropy(logits), gamma)


def focal_of(losses: torch.Tensor, gamma: float) -> torch.Tensor:
    """Focal loss of cross-entropies, or of their means, of any shape: ``(1 - exp(-loss))^gamma loss``."""
    check_number("gamma", gamma)
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

    Source: Hermans et al., In defense of the triplet loss, 2017; over four resolutions: Lai & Lam, APSIPA ASC 2021.
    """
    check_batch(features, labels)
    check_number("margin", margin)
    same = labels[:, None] == labels[None, :]
    return _hardest(_cosine_distances(features), same, _others(labels), margin).mean()


def octuplet(
    features: torch.Tensor,
    labels: torch.Tensor,
    views: int | list[int] | tuple[int, ...],
    margin: float = 0.5,
    *,
    form: str = "lrfr",
    metric: str = "cosine",
) -> torch.Tensor:
    """Sum of four hardest-triplet losses within and across resolutions, shape ().

    The four are HR-HR, HR-LR, LR-HR and LR-LR. HR-LR, for example, takes anchors from the high-resolution view, and
    positives and negatives from a low-resolution one. Each is a mean over anchors as in ``hardest_triplet``. The paper
    has one LR view; with several, the loss is the mean over pairs of HR and one LR view.

    The forms differ in what is a positive, and in anchors that lack one:

    - ``lrfr``: across views, the image at the anchor's place is a positive, because here it is another image of the
      identity. Anchors without a positive or a negative add 0; with one image per identity and view, these are all
      anchors of HR-HR and LR-LR.
    - ``authors``: the image at the anchor's place is not a positive, because in the paper both views are of one image.
      An anchor without a positive has one at distance 0; without a negative, it takes the nearest image of any identity.

    Args:
        features: (N, D), view after view, HR first.
        labels: (N,) int64.
        views: number of views, at least two; or the number of images of an identity in each.
        margin: in units of the distance.
        form: ``lrfr`` or ``authors``.
        metric: the distance: 1 - ``cosine``, ``euclidean`` (of features that are not normalised) or its ``square``.

    Raises:
        TypeError: ``features`` or ``labels`` have another type or shape, or ``form`` or ``metric`` is unknown.
        ValueError: there are fewer than two views, or N is not a multiple of the images of an identity.

    Source: Knoche et al., Octuplet loss: make face recognition robust to image resolution, FG 2023, and their code.
    """
    check_batch(features, labels)
    check_number("margin", margin)
    check_argument(form in ("lrfr", "authors"), "form", form, "lrfr or authors")
    check_argument(metric in DISTANCES, "metric", metric, f"one of {', '.join(DISTANCES)}")
    high, *low = _view_slices(len(labels), views)
    distances = DISTANCES[metric](features)
    same, others = labels[:, None] == labels[None, :], _others(labels)

    def triplets(anchors: slice, candidates: slice) -> torch.Tensor:
        block = (anchors, candidates)
        if form == "authors":
            return _hardest_or_none(distances[block], same[block], margin).mean()
        return _hardest(distances[block], same[block], others[block], margin).mean()

    across = [triplets(high, part) + triplets(part, high) + triplets(part, part) for part in low]
    return triplets(high, high) + torch.stack(across).mean()


def _view_slices(images: int, views: int | list[int] | tuple[int, ...]) -> list[slice]:
    """The rows of each view. Raises: ValueError: see ``octuplet``."""
    copies = [*views] if isinstance(views, list | tuple) else [1] * check_whole("views", views, 2)
    if len(copies) < 2:
        raise ValueError(f"{counted(len(copies), 'view')}, expected at least two")
    if images % sum(copies):
        raise ValueError(f"{counted(images, 'image')} of {len(copies)} views, expected a multiple of {sum(copies)}")
    ends = [images // sum(copies) * count for count in itertools.accumulate(copies)]
    return [slice(start, stop) for start, stop in zip([0, *ends], ends, strict=False)]


def _cosine_distances(features: torch.Tensor) -> torch.Tensor:
    """(N, D) -> (N, N), 1 - cosine."""
    return 1.0 - cosines(features, features)


def _euclidean_distances(features: torch.Tensor) -> torch.Tensor:
    """(N, D) -> (N, N), float32 or float64, also under autocast. The gradient of a distance of 0 is 0."""
    with torch.autocast(features.device.type, enabled=False):
        features = full_precision(features)  # not as a matrix product: nearby features would lose their digits
        return torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")


DISTANCES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {  # (N, D) -> (N, N)
    "cosine": _cosine_distances,
    "euclidean": _euclidean_distances,
    "square": lambda features: _euclidean_distances(features).square(),
}


def _others(labels: torch.Tensor) -> torch.Tensor:
    """(N, N) bool, False for an image and itself."""
    return ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)


def _hardest(distances: torch.Tensor, same: torch.Tensor, others: torch.Tensor, margin: float) -> torch.Tensor:
    """(A, C) distances of anchors to candidates, same identities and other images (bool) -> (A,) triplet losses."""
    hardest_positive = distances.masked_fill(~(same & others), -torch.inf).amax(1)
    hardest_negative = distances.masked_fill(same, torch.inf).amin(1)
    return (margin + hardest_positive - hardest_negative).clamp_min(0.0)


def _hardest_or_none(distances: torch.Tensor, same: torch.Tensor, margin: float) -> torch.Tensor:
    """As ``_hardest``, but an anchor without a positive or a negative has a loss, too.

    The candidate at the anchor's place is not a positive. A missing positive is at distance 0, a missing negative as near as
    the nearest candidate.
    """
    elsewhere = ~torch.eye(*same.shape, dtype=torch.bool, device=same.device)
    hardest_positive = distances.masked_fill(~(same & elsewhere), 0.0).amax(1)
    hardest_negative = distances.masked_fill(same & ~same.all(1, keepdim=True), torch.inf).amin(1)
    return (margin + hardest_positive - hardest_negative).clamp_min(0.0)
