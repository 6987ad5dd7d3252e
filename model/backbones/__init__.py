"""Backbones by name: (N, 3, S, S) float in -1..1 -> (N, 512) float, not normalised."""

from __future__ import annotations

from model.backbones.output import EMBEDDING_SIZE
from model.backbones.registry import BACKBONES, Backbone, BackboneError, build_backbone, check_backbone

__all__ = ["BACKBONES", "EMBEDDING_SIZE", "Backbone", "BackboneError", "build_backbone", "check_backbone"]
