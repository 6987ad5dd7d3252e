"""Cosines, never in half precision: under autocast a margin of a few hundredths would drown in bf16 rounding."""

from __future__ import annotations

import torch
from torch.nn import functional


def exact(values: torch.Tensor) -> torch.Tensor:
    """``values`` in float64 if they are, else in float32."""
    return values if values.dtype == torch.float64 else values.float()


def cosines(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """(N, D) and (M, D) -> (N, M) cosines of every pair, in float32, or in float64 if that is what was given."""
    with torch.autocast(rows.device.type, enabled=False):
        return functional.normalize(exact(rows)) @ functional.normalize(exact(columns)).T
