"""Backbones by name: (N, 3, S, S) float in -1..1 -> (N, 512) float, not normalised."""

from __future__ import annotations

import functools
from collections.abc import Callable

from torch import nn

from model.backbones.spherenet import BLOCKS, EMBEDDING_SIZE, spherenet

__all__ = ["BACKBONES", "EMBEDDING_SIZE", "build_backbone"]

BACKBONES: dict[str, Callable[..., nn.Module]] = {
    f"spherenet{depth}": functools.partial(spherenet, depth) for depth in BLOCKS
}


def build_backbone(name: str, *, image_size: int = 128) -> nn.Module:
    """A freshly initialised backbone for square images of ``image_size`` px. Raises: KeyError: unknown name."""
    return BACKBONES[name](image_size=image_size)
