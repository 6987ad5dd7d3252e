"""Sizes of image files from their headers, and what they suggest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from shards.messages import counted
from shards.process_setting import ignored_warnings

# A tight crop of a face is neither wide nor very tall, and seldom so large.
MAX_WIDTH_TO_HEIGHT, MAX_HEIGHT_TO_WIDTH, MAX_FACE_PX = 1.25, 2, 1000
TRIED_IMAGES = 200
MIN_SHARE = 0.1  # of the images tried: a few odd crops are no reason to warn


def image_size(path: Path) -> tuple[int, int] | None:
    """(width, height) in px from the header of an image file; None if it is unreadable or implausibly large."""
    try:
        if not path.is_file():
            return None
        with ignored_warnings("PIL"), Image.open(path) as image:  # it warns about large ones
            return image.size
    except Exception:  # noqa: BLE001 -- Pillow raises errors of any type on damaged files
        return None


def photograph_warning(paths: Sequence[str]) -> str | None:
    """Says that images have the shape or size of photographs rather than of tight face crops.

    Tries up to ``TRIED_IMAGES`` of the images, evenly spaced.

    Returns:
        The warning; None if less than ``MIN_SHARE`` of the images look so.
    """
    tried = paths[:: max(-(-len(paths) // TRIED_IMAGES), 1)]
    sizes = [(path, size) for path in tried if (size := image_size(Path(path)))]
    found = [(path, size) for path, size in sizes if _is_photograph(*size)]
    if len(found) < max(MIN_SHARE * len(sizes), 1):
        return None
    path, (width, height) = found[0]
    return (
        f"warning: photographs rather than tight crops of faces, by shape or size: {len(found)} of"
        f" {counted(len(sizes), 'image')} tried ({path}: {width}x{height} px); without --landmarks each is resized whole"
    )


def _is_photograph(width: int, height: int) -> bool:
    return (
        width > MAX_WIDTH_TO_HEIGHT * height or height > MAX_HEIGHT_TO_WIDTH * width or max(width, height) > MAX_FACE_PX
    )
