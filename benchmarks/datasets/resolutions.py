"""Images at several resolutions, as Lai & Lam score LFW (APSIPA ASC 2021)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from pipeline.prepare import Request

RESOLUTIONS = (8, 12, 16, 20)  # px


def at_sizes(
    images: Sequence[Request], sizes: Sequence[int], full: str
) -> tuple[list[Request], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Prepares images undegraded and at each size.

    HR to LR degrades the second image of a comparison, LR to LR both.

    Args:
        images: the N images, undegraded.
        sizes: px.
        full: name of the setting in which no image is degraded.

    Returns:
        The requests.
        Setting -> (N,) rows of the requests: of the images as the first of a comparison, and as the second.
    """
    downs = (None, *sizes)
    requests = [dataclasses.replace(image, down=down) for image in images for down in downs]
    rows = {down: np.arange(len(images)) * len(downs) + index for index, down in enumerate(downs)}
    settings = {f"{{}}@{size}": (rows[None], rows[size]) for size in sizes}
    settings[full] = (rows[None], rows[None])
    return requests, settings | {f"lr-lr/{{}}@{size}": (rows[size], rows[size]) for size in sizes}


def at_resolutions(
    images: Sequence[Request], members: np.ndarray, full: str, sizes: Sequence[int] = RESOLUTIONS
) -> tuple[list[Request], dict[str, np.ndarray]]:
    """Prepares the images of pairs undegraded and at each resolution.

    Args:
        images: the N images, undegraded.
        members: (P, 2) rows of ``images``.
        full: name of the setting in which no image is degraded.
        sizes: px.

    Returns:
        The requests.
        Setting -> (P, 2) rows of the requests.
    """
    requests, settings = at_sizes(images, sizes, full)
    return requests, {
        name: np.stack([first[members[:, 0]], second[members[:, 1]]], axis=1)
        for name, (first, second) in settings.items()
    }
