"""An embedder without a network: linear discriminant analysis of histograms of gradients, fitted in seconds."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.images.decode import decode_bytes
from shards.index import ShardIndex, ShardReader

COMPONENTS, SHRINKAGE = 250, 0.3
ORIENTATIONS, CELLS = 8, (12, 14)  # of a histogram; columns and rows of histograms
WINDOW_PX = (80, 96)


class Discriminant:
    """Whitened within people, so that photographs of one person come together.

    Source: Belhumeur, Hespanha & Kriegman, Eigenfaces vs. Fisherfaces, 1997; Dalal & Triggs, Histograms of oriented
    gradients, 2005.

    Args:
        index: a shard set whose people are learned, with its faults.
    """

    def __init__(self, index: ShardIndex) -> None:
        with ShardReader(index) as reader:
            images = [decode_bytes(reader.image(row)) for row in range(len(index))]
        features = np.stack([_gradients(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)) for image in images])
        self._mean = features.mean(0)
        count = min(COMPONENTS, len(features) // 2)
        left, values, right = np.linalg.svd(features - self._mean, full_matrices=False)
        reduced = left[:, :count]
        centres = np.add.reduceat(reduced, index.first) / index.count[:, None]
        within = np.cov((reduced - np.repeat(centres, index.count, axis=0)).T)
        within += SHRINKAGE * np.trace(within) / count * np.eye(count)
        spreads, axes = np.linalg.eigh(within)
        self._projection = (right[:count].T / values[:count]) @ (axes / np.sqrt(spreads))

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(N, S, S, 3) uint8 RGB -> (N, D) float32."""
        grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
        return ((np.stack([_gradients(image) for image in grey]) - self._mean) @ self._projection).astype(np.float32)


def _gradients(image: np.ndarray) -> np.ndarray:
    """(D,) histograms of the directions of the gradients in a (S, S) crop that follows template seed."""
    size = image.shape[0] / 128
    rows, columns = slice(int(16 * size), int(124 * size)), slice(int(8 * size), int(102 * size))
    face = cv2.resize(image[rows, columns], WINDOW_PX, interpolation=cv2.INTER_AREA).astype(np.float32)
    across, down = (cv2.Sobel(face, cv2.CV_32F, x, 1 - x, ksize=3) for x in (1, 0))
    strength = np.hypot(across, down)
    direction = np.arctan2(down, across) % (2 * np.pi) / (2 * np.pi) * ORIENTATIONS
    maps = []
    for bin_ in range(ORIENTATIONS):
        distance = np.abs((direction - bin_ + ORIENTATIONS / 2) % ORIENTATIONS - ORIENTATIONS / 2)
        votes = cv2.GaussianBlur(strength * np.clip(1 - distance, 0, None), (0, 0), 2.5)
        maps.append(cv2.resize(votes, CELLS, interpolation=cv2.INTER_AREA))
    histograms = np.stack(maps, axis=-1)
    total = cv2.blur(histograms.sum(-1), (3, 3))[..., None]
    return np.sqrt(histograms / (total + 20)).ravel()
