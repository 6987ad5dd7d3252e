"""Checks by the points, and by the sizes of some images, whether landmarks are in px of their images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from pipeline.tables.landmark_table import LandmarkError, Point
from shards.messages import counted

MAX_ROWS = 2000  # looked at, spread over a table
TRIED_IMAGES, MIN_IMAGES = 12, 3
MOST = 0.9  # of the rows
NORMALISED = 1.5  # no face is so small, and some points of normalised ones lie outside their image
FAR, NEAR = 1.25, 1 / 3  # of an image: where points end that are for a larger or a smaller one


def spread(total: int) -> range:
    """Returns up to ``TRIED_IMAGES`` positions, spread over ``total``."""
    return range(0, total, max(-(-total // TRIED_IMAGES), 1))


def check_pixels(path: Path, points: np.ndarray) -> None:
    """Checks that (N, 8) or (N, 10) numbers of a table are not normalised to the size of the images.

    Raises:
        LandmarkError: most are. Rows whose points coincide or are not finite do not count.
    """
    rows = points[:: max(len(points) // MAX_ROWS, 1)].reshape(-1, points.shape[1] // 2, 2)
    rows = rows[np.isfinite(rows).all((1, 2))]
    rows = rows[(np.ptp(rows, axis=1) > 0).all(1)]
    normalised = rows[(np.abs(rows) <= NORMALISED).all((1, 2))]
    if len(normalised) and len(normalised) >= MOST * len(rows):
        raise LandmarkError(
            f"{path}: the points of {len(normalised):,} of {counted(len(rows), 'row')} looked at lie between"
            f" {normalised.min():.2g} and {normalised.max():.2g}, so they are normalised; expected px: multiply x by the"
            " width of the image and y by its height"
        )


def scale_warning(faces: Iterable[tuple[str, Sequence[Point], tuple[int, int] | None]]) -> str | None:
    """Says that points are probably for larger or smaller images.

    Args:
        faces: name, points in px, and (width, height) of some images; None if it is not known.

    Returns:
        The warning; None if the points of most images lie in them, or if few sizes are known.
    """
    sizes = [(name, np.array(points, float), size) for name, points, size in faces if size and len(points)]
    reaches = [float((points / size).max()) for _, points, size in sizes]
    known = [number for number, reach in enumerate(reaches) if np.isfinite(reach)]
    beyond = [number for number in known if reaches[number] > FAR]
    near = [number for number in known if reaches[number] < NEAR]
    for found, kind, where in (
        (beyond, "larger", "end far outside their image"),
        (near, "smaller", "lie in the first third of its width and height"),
    ):
        if len(known) >= MIN_IMAGES and len(found) >= MOST * len(known):
            name, points, (width, height) = sizes[found[0]]
            x, y = points.max(0)
            return (
                f"the points of {len(found)} of {counted(len(known), 'image')} tried {where} ({name}: {width}x{height} px,"
                f" points to {x:.0f}, {y:.0f}), so they are probably for {kind} images; name the table of these images,"
                " or scale its numbers"
            )
    return None
