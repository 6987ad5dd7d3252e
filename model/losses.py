"""The losses of the deep Siamese network, on one concatenated batch of all resolutions."""

from __future__ import annotations

import torch
from torch.nn import functional

from model.cosine import cosines


def view_cross_entropies(logits: torch.Tensor, labels: torch.Tensor, views: int) -> torch.Tensor:
    """(V,) mean cross-entropy of each view; logits (V*b, classes) and labels (V*b,) lie view after view."""
    return functional.cross_entropy(logits, labels, reduction="none").reshape(views, -1).mean(1)


def hardest_triplet(features: torch.Tensor, labels: torch.Tensor, margin: float = 1.0) -> torch.Tensor:
    """Mean over anchors of ``max(0, margin + hardest positive - hardest negative)``, distance 1 - cosine.

    Args:
        features: (N, D), of all views together.  labels: (N,).

    An anchor's positives are all other images of its identity, at whatever resolution; one without a positive
    or without a negative adds nothing.

    Source: Hermans et al., In defense of the triplet loss, 2017; over four resolutions: Lai & Lam, ICIP 2021.
    """
    distance = 1.0 - cosines(features, features)
    same = labels[:, None] == labels[None, :]
    others = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    hardest_positive = distance.masked_fill(~(same & others), -torch.inf).amax(1)
    hardest_negative = distance.masked_fill(same, torch.inf).amin(1)
    return (margin + hardest_positive - hardest_negative).clamp_min(0.0).mean()
