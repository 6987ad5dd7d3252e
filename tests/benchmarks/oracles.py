"""Naive evaluations shared by tests of metrics and of data sets."""

from __future__ import annotations

import numpy as np
import scipy.io
from PIL import Image


def resized_whole(path):
    """The (128, 128, 3) uint8 RGB input made by Pillow from a whole image."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((128, 128), Image.Resampling.BICUBIC))


def file_names(path, variable):
    """Rows of file names in a MATLAB cell array."""
    return [[str(cell[0]) for cell in row] for row in scipy.io.loadmat(path)[variable]]


def naive_ranking(probe, identity, gallery, ids):
    """Rank of the best mate, and average precision, by a walk down the ranked list; an impostor of equal score comes first."""
    scores = gallery @ probe
    order = sorted(range(len(gallery)), key=lambda row: (-scores[row], ids[row] == identity))
    mates = [ids[row] == identity and identity != -1 for row in order]
    if not any(mates):
        return 0, 0.0
    precision_before, recall_before, area, hits = 1.0, 0.0, 0.0, 0
    for position, mate in enumerate(mates, 1):
        hits += mate
        precision, recall = hits / position, hits / sum(mates)
        area += (recall - recall_before) * (precision + precision_before) / 2
        precision_before, recall_before = precision, recall
    return mates.index(True) + 1, area
