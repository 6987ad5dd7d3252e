"""Cosine similarity in float32 or float64, also under autocast: bf16 rounding exceeds a margin of a few hundredths."""

from __future__ import annotations

import torch
from torch.nn import functional


def full_precision(values: torch.Tensor) -> torch.Tensor:
    """``values`` as float32; float64 stays float64."""
    return values if values.dtype == torch.float64 else values.float()


def cosines(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Cosine similarity of every pair: (N, D) and (M, D) -> (N, M), float32 or float64."""
    with torch.autocast(rows.device.type, enabled=False):
        return functional.normalize(full_precision(rows)) @ functional.normalize(full_precision(columns)).T
