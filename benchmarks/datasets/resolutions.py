"""Pairs at several resolutions, as Lai & Lam score LFW (ICIP 2021)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from pipeline.prepare import Request

RESOLUTIONS = (8, 12, 16, 20)  # px


def at_resolutions(
    images: Sequence[Request], members: np.ndarray, full: str
) -> tuple[list[Request], dict[str, np.ndarray]]:
    """Prepares images undegraded and at each resolution.

    HR to LR degrades the second image of a pair, LR to LR both.

    Args:
        images: the N images, undegraded.
        members: (P, 2) rows of ``images``.
        full: name of the setting in which no image is degraded.

    Returns:
        The requests.
        Setting -> (P, 2) rows of the requests.
    """
    sizes = (None, *RESOLUTIONS)
    requests = [dataclasses.replace(image, down=down) for image in images for down in sizes]
    rows = {down: members * len(sizes) + index for index, down in enumerate(sizes)}
    settings = {f"{{}}@{size}": np.stack([rows[None][:, 0], rows[size][:, 1]], axis=1) for size in RESOLUTIONS}
    settings[full] = rows[None]
    settings |= {f"lr-lr/{{}}@{size}": rows[size] for size in RESOLUTIONS}
    return requests, settings
