"""Files of generated faces, and the rows of tables about them."""

from __future__ import annotations

import cv2
import pyarrow.parquet as pq


def faces(folder, painted, names):
    """Writes generated faces; returns their paths and landmarks."""
    shots = [shot for shots in painted.values() for shot in shots]
    for name, (pixels, _) in zip(names, shots, strict=False):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), pixels[..., ::-1])
    return [str(folder / name) for name in names], [points for _, points in shots[: len(names)]]


def rows(path):
    return pq.read_table(path).to_pylist()
