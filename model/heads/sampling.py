"""Which classes take part in a step."""

from __future__ import annotations

import numpy as np
import torch


def sample_classes(labels: torch.Tensor, classes: int, share: float, *, seed: int, draw: int) -> torch.Tensor:
    """(N,) labels -> (S,) int64, ascending: their classes, and ``share`` of all others at random (rounded).

    Every class draws a number and the smallest stay. The sample is a function of the arguments alone, so it is the same
    on every rank, whatever their number.

    Source: An et al., Killing two birds with one stone: Partial FC, CVPR 2022.
    """
    numbers = torch.from_numpy(np.random.default_rng([seed, draw]).random(classes)).to(labels.device)
    numbers[labels] = -1.0
    positives = int((numbers < 0.0).sum())  # waits for the device
    kept = positives + round(share * (classes - positives))
    return numbers.topk(kept, largest=False).indices.sort().values
