"""Cosines, always in fp32: under autocast a margin of a few hundredths would drown in bf16 rounding."""

from __future__ import annotations

import torch
from torch.nn import functional


def cosines(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """(N, D) and (M, D) -> (N, M) float32 cosines of every pair."""
    with torch.autocast(rows.device.type, enabled=False):
        return functional.normalize(rows.float()) @ functional.normalize(columns.float()).T
