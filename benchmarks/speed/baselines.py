"""Each stage as an ordinary PyTorch user implements it."""

from __future__ import annotations

import itertools
import multiprocessing
import multiprocessing.util
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, RandomSampler, default_collate

from benchmarks.scoring.protocols import PairProtocol
from benchmarks.speed import VGGFACE2_IDENTITIES
from benchmarks.speed.faces import CROP_SIZE, JPEG_QUALITY, read_tree
from benchmarks.speed.timing import cores
from model.backbones import EMBEDDING_SIZE, build_backbone
from model.losses.functional import hardest_triplet
from pipeline.align import template_points
from pipeline.executors import WorkerError, starting_workers
from pipeline.opencv import single_thread

_ALIGNED_BATCH, _PAIRS_BATCH = 64, 32


def align_files(tree: Path, out: Path, images: int, workers: int) -> int:
    """Aligns the first images of a tree, each into a file of ``out``; returns their number."""

    def store(row: tuple[Path, np.ndarray]) -> bool:
        path, points = row
        target = out / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        return cv2.imwrite(str(target), align(path, points), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])

    return sum(len(batch) for batch in map_batches(store, read_tree(tree, images), _ALIGNED_BATCH, workers))


def align(path: Path, points: np.ndarray) -> np.ndarray:
    """(S, S, 3) uint8 BGR."""
    matrix = similarity(points, template_points("seed", CROP_SIZE))
    return cv2.warpAffine(cv2.imread(str(path)), matrix, (CROP_SIZE, CROP_SIZE), flags=cv2.INTER_CUBIC)


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
    """A random image per size (px), randomly flipped and degraded: (V, S, S, 3) uint8 RGB, or inputs of a network."""
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


def worker_count(items: int) -> int:
    """DataLoader workers for pairs: one per core, but not more than there are batches."""
    return min(cores(), -(-items // _PAIRS_BATCH))


def score_pairs(
    network: nn.Module, protocol: PairProtocol, resolutions: Sequence[int], *, both: bool = False
) -> tuple[np.ndarray, list[float]]:
    """(R, P) float64 cosines of P pairs at R resolutions (px), the second image degraded; and R accuracies.

    With ``both`` both images are embedded as they are and degraded: four passes per pair, of which two are scored.
    """

    def load(item: tuple[int, tuple[int, int]]) -> list[torch.Tensor]:
        resolution, pair = item
        crops = [align(protocol.requests[row].path, np.array(protocol.requests[row].points)) for row in pair]
        first, second = (Image.fromarray(cv2.cvtColor(crop, cv2.COLOR_BGR2RGB)) for crop in crops)
        images = [np.array(first), degrade(second, resolution)]
        if both:
            images += [np.array(second), degrade(first, resolution)]
        return [as_input(image).contiguous() for image in images]

    items = list(itertools.product(resolutions, protocol.members[f"{{}}@{CROP_SIZE}"].tolist()))
    scores = []
    with torch.no_grad():
        for images in map_batches(load, items, _PAIRS_BATCH, worker_count(len(items))):
            first, second, *_ = [network(view) for view in images]
            scores.append(nn.functional.cosine_similarity(first, second))
    table = torch.cat(scores).double().numpy().reshape(len(resolutions), -1)
    return table, [accuracy(row, protocol.genuine, protocol.folds) for row in table]


def accuracy(scores: np.ndarray, genuine: np.ndarray, folds: np.ndarray) -> float:
    """Mean accuracy of (P,) scores over the folds, each at the largest threshold that is best on the other folds."""
    correct = (scores >= np.linspace(-1.0, 1.0, 10001)[:, None]) == genuine
    accuracies = []
    for fold in np.unique(folds):
        counts = correct[:, folds != fold].sum(1)
        best = len(counts) - 1 - np.argmax(counts[::-1])
        accuracies.append(correct[best, folds == fold].mean())
    return float(np.mean(accuracies))


def plain_update(backbone: str, device: str) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """A training step as in Lai & Lam, APSIPA ASC 2021: a forward pass per resolution, AM-Softmax, hardest triplet, SGD."""
    network = build_backbone(backbone).to(device).train()
    weight = nn.Parameter(torch.empty(VGGFACE2_IDENTITIES, EMBEDDING_SIZE, device=device).uniform_(-1, 1))
    optimizer = torch.optim.SGD([*network.parameters(), weight], lr=1e-4, momentum=0.9, weight_decay=5e-4)

    def update(images: torch.Tensor, labels: torch.Tensor) -> None:
        views = [network(((view.permute(0, 3, 1, 2) / 255.0 - 0.5) / 0.5).contiguous()) for view in images.unbind()]
        margin = 0.35 * functional.one_hot(labels, len(weight))
        rows = functional.normalize(weight)
        logits = [30 * (functional.normalize(view) @ rows.T - margin) for view in views]
        losses = [functional.cross_entropy(view, labels) for view in logits]
        loss = torch.stack(losses).mean() + hardest_triplet(torch.cat(views), labels.repeat(len(views)))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return update


def map_batches(
    function: Callable[[Any], Any], items: Sequence[Any], batch: int, workers: int, draws: int | None = None
) -> Iterator[Any]:
    """Yields batches of ``function(item)`` from worker processes. They have ended when the loop ends, even on Ctrl-C.

    Draws ``draws`` items with replacement; by default takes all in order.

    Raises:
        WorkerError: a worker was killed, or there is no shared memory.
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

    OpenCV uses one thread while they start, because a fork loses the others. PyTorch's handler of SIGCHLD raises an
    error at any line once a worker dies; without it the iterator still raises one. Workers send tensors through sockets
    in a temporary folder: in that of this process, because workers that are killed could not remove their own.
    """
    try:
        multiprocessing.Lock()
    except OSError as error:  # PyTorch's iterator would add a traceback
        raise WorkerError(
            f"/dev/shm: {error.strerror}; the DataLoader to compare with needs shared memory: mount it, or free space"
        ) from None
    handler = signal.getsignal(signal.SIGCHLD)
    try:
        multiprocessing.util.get_temp_dir()  # workers inherit its path
        with single_thread, starting_workers():
            return iter(loader)
    finally:
        signal.signal(signal.SIGCHLD, handler)
