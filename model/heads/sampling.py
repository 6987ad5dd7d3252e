"""Class sampling of Partial FC."""

from __future__ import annotations

import numpy as np
import torch


def sample_classes(labels: torch.Tensor, classes: int, fraction: float, *, seed: int, draw: int) -> torch.Tensor:
    """Samples the classes of one step: those of ``labels``, and a fraction of all others.

    The result depends on the arguments alone, so it is the same on every rank and for any number of ranks.

    Args:
        labels: (N,) int64.
        classes: number of all classes.
        fraction: of the classes that are not in ``labels``, rounded to whole classes.
        seed: of the run.
        draw: number of the sample.

    Returns:
        (S,) int64 class numbers in ascending order.

    Source: An et al., Killing two birds with one stone: Partial FC, CVPR 2022.
    """
    numbers = torch.from_numpy(np.random.default_rng([seed, draw]).random(classes)).to(labels.device)
    numbers[labels] = -1.0
    positives = int((numbers < 0.0).sum())  # synchronises with the device
    kept = positives + round(fraction * (classes - positives))
    return numbers.topk(kept, largest=False).indices.sort().values
