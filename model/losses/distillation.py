"""Losses between the embeddings of a student and those of its teacher, for one batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from model.cosine import cosines, full_precision
from shards.arguments import check_argument


def cosine_distances(features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(N,) ``1 - cosine`` of each embedding and its target, both (N, D)."""
    _check(features, targets)
    with torch.autocast(features.device.type, enabled=False):
        return 1.0 - functional.cosine_similarity(full_precision(features), full_precision(targets))


def squared_distances(features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(N,) squared Euclidean distance of each embedding and its target on the unit sphere: ``2 (1 - cosine)``."""
    return 2.0 * cosine_distances(features, targets)


def relational(features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of the (N, N) cosine similarities among embeddings and among their targets, shape ().

    Source: Tung & Mori, Similarity-preserving knowledge distillation, ICCV 2019, equation 4, which divides each row of
    the matrix of dot products by its length; here the matrix has cosines, as in Park et al., Relational knowledge
    distillation, CVPR 2019, whose potentials are of pairs in the batch.
    """
    _check(features, targets)
    return (cosines(features, features) - cosines(targets, targets)).square().mean()


def attention_map(features: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) or (N, T, C) feature maps -> (N, H*W) or (N, T): where they are large, squared and summed over channels."""
    with torch.autocast(features.device.type, enabled=False):
        squares = full_precision(features).square()
        return squares.sum(1).flatten(1) if features.ndim == 4 else squares.sum(2)


def attention(student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor]) -> torch.Tensor:
    """(N,) mean over stages of ``1 - cosine`` of the attention maps of two networks, one (N, M) map a stage.

    Source: Zagoruyko & Komodakis, Paying more attention to attention, ICLR 2017, whose distance of normalised maps is
    ``sqrt(2 (1 - cosine))``.
    """
    return torch.stack([cosine_distances(ours, theirs) for ours, theirs in zip(student, teacher, strict=True)]).mean(0)


def _check(features: torch.Tensor, targets: torch.Tensor) -> None:
    """Raises: TypeError: not two matrices of one shape."""
    good = features.ndim == 2 and features.shape == targets.shape
    expected = f"a target for each embedding, shape {tuple(features.shape)}"
    check_argument(good, "targets", targets, expected)
