"""What a reader of graphs returns, and how it chooses the preprocessing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import nn

from model.errors import CheckpointError
from pipeline.presets import PRESETS, preset_name
from pipeline.spec import MAX_SIZE_PX, Preprocessing

ASSUMED = "insightface"  # most graphs that are passed around are of its networks
MAX_NUMBERS = 1 << 16  # of an embedding


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoundGraph:
    """A graph that was read.

    Attributes:
        module: (N, 3, S, S) float pixels, prepared by ``spec`` -> (N, D) float.
        name: kind of the graph, or the backbone that its file states.
        stated: False if ``spec`` is assumed.
        step: number of updates; None if not stated.
        cached: False if its embeddings may change without its digest.
    """

    module: nn.Module
    name: str
    spec: Preprocessing
    stated: bool
    step: int | None = None
    cached: bool = True


def choose_spec(path: Path, size: int | None, given: Preprocessing | None, *, expected: str) -> Preprocessing:
    """The preprocessing of a graph that states none.

    Args:
        size: side of its images, px; None: any.
        given: what the user says; None: the assumed one.
        expected: the graph's input, for the message.

    Raises:
        CheckpointError: the sizes differ, or images are too large.
    """
    if size is not None and not 1 <= size <= MAX_SIZE_PX:
        raise CheckpointError(f"{path}: takes {expected}, expected images of at most {MAX_SIZE_PX} px")
    if given is None:
        return PRESETS[ASSUMED] if size is None else PRESETS[ASSUMED].resized(size)
    if size is None or given.size == size:
        return given
    if preset_name(given) is not None:
        return given.resized(size)
    raise CheckpointError(
        f"{path}: takes {expected}, but --preprocessing has size = {given.size}; expected size = {size}"
    )


def check_embeddings(path: Path, found: object, count: int) -> None:
    """Checks what a graph made of ``count`` images. Raises: CheckpointError: no embeddings."""
    shape = f"shape {tuple(found.shape)}" if isinstance(found, torch.Tensor) else f"a {type(found).__name__}"
    good = isinstance(found, torch.Tensor) and found.ndim == 2 and len(found) == count
    if not good or not isinstance(found, torch.Tensor) or not 2 <= found.shape[1] <= MAX_NUMBERS:
        raise CheckpointError(
            f"{path}: its output for {count} images has {shape}, expected ({count}, D) embeddings; it is no network for"
            " faces, or needs a function of your own: --network module:function"
        )
    if not torch.isfinite(found).all():
        raise CheckpointError(f"{path}: its output for a grey image is not finite; the file is damaged")
