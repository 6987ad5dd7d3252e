"""Aligning and loading with PyTorch's DataLoader, one file per image."""

from __future__ import annotations

import functools
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, RandomSampler, default_collate

from benchmarks.speed.faces import CROP_SIZE, JPEG_QUALITY, read_tree
from pipeline.align import template_points
from pipeline.executors import WorkerError, starting_workers

_BATCH = 64  # images to align

Item = TypeVar("Item")


def align_files(tree: Path, out: Path, images: int, workers: int) -> int:
    """Aligns the first images of a tree, each into a file of ``out``; returns their number."""
    align = functools.partial(_align, out, template_points("seed", CROP_SIZE))
    return sum(len(batch) for batch in map_batches(align, read_tree(tree, images), _BATCH, workers))


def _align(out: Path, template: np.ndarray, row: tuple[Path, np.ndarray]) -> bool:
    path, points = row
    matrix = similarity(points, template)
    crop = cv2.warpAffine(cv2.imread(str(path)), matrix, (CROP_SIZE, CROP_SIZE), flags=cv2.INTER_CUBIC)
    target = out / path.parent.name / path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    return cv2.imwrite(str(target), crop, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])


def similarity(landmarks: np.ndarray, template: np.ndarray) -> np.ndarray:
    """The (2, 3) matrix that maps (5, 2) landmarks to a template: the better of two fits, one of them mirrored."""
    fits = []
    for mirror in (1.0, -1.0):
        x, y = (template * (mirror, 1.0)).T
        ones, zeros = np.ones_like(x), np.zeros_like(x)
        system = np.vstack([np.column_stack([x, y, ones, zeros]), np.column_stack([y, -x, zeros, ones])])
        (a, b, dx, dy), *_ = np.linalg.lstsq(system, landmarks.T.ravel(), rcond=None)
        forward = np.array([[a, b, dx], [-b, a, dy], [0.0, 0.0, 1.0]]) @ np.diag([mirror, 1.0, 1.0])
        error = np.linalg.norm(np.column_stack([template, ones]) @ forward[:2].T - landmarks)
        fits.append((error, forward))
    return np.linalg.inv(min(fits, key=lambda fit: fit[0])[1])[:2]


def load_views(sizes: Sequence[int], normalised: bool, paths: Sequence[Path]) -> torch.Tensor:
    """A random image per size (px), randomly flipped and degraded.

    Returns:
        (V, 3, S, S) float32 in -1..1 if ``normalised``, otherwise (V, S, S, 3) uint8, RGB.
    """
    views = []
    for size in sizes:
        image: Image.Image = Image.open(paths[int(torch.randint(len(paths), ()))]).convert("RGB")
        if torch.rand(()) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = degrade(image, size)
        views.append(as_input(pixels) if normalised else torch.from_numpy(pixels))
    return torch.stack(views)


def degrade(image: Image.Image, size: int) -> np.ndarray:
    """The (S, S, 3) uint8 image after resizing to ``size`` px and back."""
    if size != image.width:
        small = image.resize((size, size), Image.Resampling.BICUBIC)
        image = small.resize(image.size, Image.Resampling.BICUBIC)
    return np.array(image)


def as_input(pixels: np.ndarray) -> torch.Tensor:
    """(S, S, 3) uint8 -> (3, S, S) float32 in -1..1."""
    return (torch.from_numpy(pixels).permute(2, 0, 1).float() / 255 - 0.5) / 0.5


def map_batches(
    function: Callable[[Item], Any], items: Sequence[Item], batch: int, workers: int, draws: int | None = None
) -> Iterator[Any]:
    """Yields batches of ``function(item)`` from worker processes, which have ended when the loop ends, on Ctrl-C too.

    Args:
        draws: number of items to draw with replacement; None for all items in order.

    Raises:
        WorkerError: a worker was killed.
    """
    loader: DataLoader = DataLoader(
        items,  # type: ignore[arg-type]
        batch,
        sampler=None if draws is None else RandomSampler(items, replacement=True, num_samples=draws),
        num_workers=workers,
        collate_fn=lambda batch: default_collate([function(item) for item in batch]),
        multiprocessing_context="fork",
    )
    others = set(multiprocessing.active_children())
    try:
        yield from _start(loader)
        return
    except KeyboardInterrupt:
        pass  # raised again below: this traceback keeps PyTorch's iterator alive, and with it the workers
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise WorkerError("a worker process of a DataLoader died (out of memory?)") from None
    finally:
        for worker in set(multiprocessing.active_children()) - others:
            worker.kill()
            worker.join()
    raise KeyboardInterrupt


def _start(loader: DataLoader) -> Iterator[Any]:
    """Starts the workers, and restores what that changes in this process.

    OpenCV uses one thread in the meantime: a fork loses the others. PyTorch's handler of SIGCHLD raises an error at
    any line once a worker dies; without it the iterator still raises one.
    """
    threads, handler = cv2.getNumThreads(), signal.getsignal(signal.SIGCHLD)
    try:
        cv2.setNumThreads(1)
        with starting_workers():
            return iter(loader)
    finally:
        cv2.setNumThreads(threads)
        signal.signal(signal.SIGCHLD, handler)
