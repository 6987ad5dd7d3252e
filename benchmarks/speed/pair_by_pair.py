"""LFW as one writes it in an evening: a PyTorch dataset of pairs, both images of each through the network at each resolution."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.speed.plain import plain_batches
from pipeline.align import fit_similarity, template_points
from pipeline.prepare import Request

SIDE = 128  # px of a crop
_PAIRS = 32  # a batch of the loader
_THRESHOLDS = np.linspace(-1.0, 1.0, 10001)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairScores:
    """One resolution. scores: (P,) float64 cosines.  accuracy: mean over the folds, a fraction."""

    scores: np.ndarray
    accuracy: float


class _Pairs(Dataset):
    """Pair ``index % P`` at resolution ``index // P``, (3, 128, 128) float32: its first image and its second, degraded.

    Of both kinds, the second as it is and the first degraded follow.
    """

    def __init__(self, pairs: Sequence[tuple[Request, Request]], resolutions: Sequence[int], both: bool) -> None:
        self._pairs, self._resolutions, self._both = pairs, resolutions, both

    def __len__(self) -> int:
        return len(self._pairs) * len(self._resolutions)

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        place, pair = divmod(index, len(self._pairs))
        resolution = self._resolutions[place]
        first, second = (_aligned(request) for request in self._pairs[pair])
        images = [first, _degraded(second, resolution)]
        if self._both:
            images += [second, _degraded(first, resolution)]
        return [_as_input(image) for image in images]


def workers(items: int) -> int:
    """Processes that prepare ``items`` pairs: one a core, but none without a batch."""
    return min(len(os.sched_getaffinity(0)), -(-items // _PAIRS))


def score_pairs(
    network: nn.Module,
    pairs: Sequence[tuple[Request, Request]],
    genuine: np.ndarray,
    folds: np.ndarray,
    resolutions: Sequence[int],
    *,
    both: bool = False,
) -> dict[int, PairScores]:
    """Embeds both images of each pair at each resolution (px, 128: as it is), in float32, and scores.

    Args:
        network: (N, 3, 128, 128) float32 -> (N, D).
        pairs: P images and their landmarks, the second to be degraded.
        genuine: (P,) bool.  folds: (P,) int.
        both: embed each image both as it is and degraded, four passes a pair, though two of them are scored.
    """
    network.eval()
    dataset = _Pairs(pairs, resolutions, both)
    loader = DataLoader(dataset, batch_size=_PAIRS, num_workers=workers(len(dataset)))
    scores = []
    with torch.no_grad(), plain_batches(loader) as batches:
        for images in batches:
            first, second, *_ = [network(view) for view in images]
            scores.append(nn.functional.cosine_similarity(first, second))
    by_resolution = torch.cat(scores).double().numpy().reshape(len(resolutions), len(pairs))
    return {
        resolution: PairScores(scores=its, accuracy=_accuracy(its, genuine, folds))
        for resolution, its in zip(resolutions, by_resolution, strict=True)
    }


def _aligned(request: Request) -> np.ndarray:
    """(128, 128, 3) uint8 RGB."""
    image = cv2.cvtColor(cv2.imread(str(request.path)), cv2.COLOR_BGR2RGB)
    matrices, _ = fit_similarity(np.array([request.points]), template_points("seed", SIDE))
    return cv2.warpAffine(image, matrices[0], (SIDE, SIDE), flags=cv2.INTER_CUBIC)


def _degraded(image: np.ndarray, resolution: int) -> np.ndarray:
    if resolution == SIDE:
        return image
    small = Image.fromarray(image).resize((resolution, resolution), Image.Resampling.BICUBIC)
    return np.array(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def _as_input(image: np.ndarray) -> torch.Tensor:
    """(3, 128, 128) float32 in -1..1."""
    return (torch.from_numpy(image).permute(2, 0, 1).contiguous().float() / 255 - 0.5) / 0.5


def _accuracy(scores: np.ndarray, genuine: np.ndarray, folds: np.ndarray) -> float:
    """Mean over the folds, each at the threshold that is best on the others; of equal thresholds the largest."""
    right = (scores >= _THRESHOLDS[:, None]) == genuine
    accuracies = []
    for fold in np.unique(folds):
        correct = right[:, folds != fold].sum(1)
        best = len(correct) - 1 - np.argmax(correct[::-1])
        accuracies.append(right[best, folds == fold].mean())
    return float(np.mean(accuracies))
