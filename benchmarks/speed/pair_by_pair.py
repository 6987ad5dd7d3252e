"""LFW pair by pair: both images of every pair go through the network at every resolution."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from PIL import Image
from torch import nn

from benchmarks.speed.dataloader import as_input, degrade, map_batches
from benchmarks.speed.faces import CROP_SIZE
from benchmarks.speed.timing import cores
from pipeline.align import fit_similarity, template_points
from pipeline.prepare import Request

_BATCH = 32  # pairs
_THRESHOLDS = np.linspace(-1.0, 1.0, 10001)

ImagePair = tuple[Request, Request]


def worker_count(items: int) -> int:
    """DataLoader workers: one per core, but not more than there are batches."""
    return min(cores(), -(-items // _BATCH))


def score_pairs(
    network: nn.Module, pairs: Sequence[ImagePair], resolutions: Sequence[int], *, both: bool = False
) -> np.ndarray:
    """(R, P) float64 cosines of P pairs at R resolutions (px), the second image degraded.

    Args:
        network: (N, 3, S, S) float32 -> (N, D).
        both: embed both images as they are and degraded: four passes per pair, of which two are scored.
    """
    network.eval()
    items = list(itertools.product(resolutions, pairs))
    scores = []
    with torch.no_grad():
        for images in map_batches(functools.partial(_inputs, both), items, _BATCH, worker_count(len(items))):
            first, second, *_ = [network(view) for view in images]
            scores.append(nn.functional.cosine_similarity(first, second))
    return torch.cat(scores).double().numpy().reshape(len(resolutions), len(pairs))


def _inputs(both: bool, item: tuple[int, ImagePair]) -> list[torch.Tensor]:
    resolution, pair = item
    first, second = map(_align, pair)
    images = [np.array(first), degrade(second, resolution)]
    if both:
        images += [np.array(second), degrade(first, resolution)]
    return [as_input(image).contiguous() for image in images]


def _align(request: Request) -> Image.Image:
    image = cv2.cvtColor(cv2.imread(str(request.path)), cv2.COLOR_BGR2RGB)
    matrices, _ = fit_similarity(np.array([request.points]), template_points("seed", CROP_SIZE))
    return Image.fromarray(cv2.warpAffine(image, matrices[0], (CROP_SIZE, CROP_SIZE), flags=cv2.INTER_CUBIC))


def accuracy(scores: np.ndarray, genuine: np.ndarray, folds: np.ndarray) -> float:
    """Mean accuracy of (P,) scores over the folds, each at the largest threshold that is best on the other folds."""
    correct = (scores >= _THRESHOLDS[:, None]) == genuine
    accuracies = []
    for fold in np.unique(folds):
        counts = correct[:, folds != fold].sum(1)
        best = len(counts) - 1 - np.argmax(counts[::-1])
        accuracies.append(correct[best, folds == fold].mean())
    return float(np.mean(accuracies))
