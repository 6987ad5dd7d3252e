"""What a reader of graphs returns, and how it chooses the preprocessing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import nn

from model.errors import CheckpointError
from pipeline.named_specs import NAMED_SPECS, spec_name
from pipeline.spec import MAX_SIZE_PX, Preprocessing
from shards.messages import counted, printable

ASSUMED = "insightface"  # most published graphs are of its networks
MAX_BATCH_PX = 1 << 26
MAX_NUMBERS = 1 << 16  # of an embedding
MIN_COSINE = 0.95  # of an image's embeddings in two batches: quantised networks reach it, dropout does not


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
        return NAMED_SPECS[ASSUMED] if size is None else NAMED_SPECS[ASSUMED].resized(size)
    if size is None or given.size == size:
        return given
    if spec_name(given) is not None:
        return given.resized(size)
    raise CheckpointError(
        f"{path}: takes {expected}, but --preprocessing has size = {given.size}; expected size = {size}"
    )


def pick_output(path: Path, outputs: dict[str, torch.Tensor], count: int) -> str:
    """The name of the output that holds the embeddings of ``count`` images: the only one of shape (N, D) with D > 1.

    Raises:
        CheckpointError: there is none, or several, or its values are not finite.
    """
    fitting = [name for name, value in outputs.items() if value.ndim == 2 and 1 < value.shape[1] <= MAX_NUMBERS]
    fitting = [name for name in fitting if len(outputs[name]) == count and outputs[name].is_floating_point()]
    if len(fitting) != 1:
        shapes = ", ".join(f"{printable(name[:40])} {tuple(value.shape)}" for name, value in list(outputs.items())[:4])
        raise CheckpointError(
            f"{path}: {len(fitting)} of its outputs could be embeddings of {counted(count, 'image')} ({shapes}), expected one"
            " of shape (N, D); name a network for face recognition, or a function of your own: module:function"
        )
    if not torch.isfinite(outputs[fitting[0]]).all():
        raise CheckpointError(f"{path}: its output for a grey image is not finite; the file is damaged")
    return fitting[0]


def check_independent(path: Path, module: nn.Module, size: int) -> None:
    """Embeds one image beside two others.

    Raises:
        CheckpointError: its embedding depends on the other image or on chance, as in training mode.
    """
    pixels = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        first, second = (module(pixels[[0, other]])[0].double() for other in (1, 2))
    norms = float(first.norm() * second.norm())
    if norms > 0 and float(first @ second) < MIN_COSINE * norms:
        raise CheckpointError(
            f"{path}: the embedding of an image changes with the other images of its batch, or from call to call, as in"
            " training mode; call network.eval() before the network is saved, or in your function"
        )


def squeezed(value: torch.Tensor) -> torch.Tensor:
    """An output without trailing axes of length 1, such as (N, D, 1, 1)."""
    while value.ndim > 2 and value.shape[-1] == 1:
        value = value[..., 0]
    return value


def check_batch(path: Path, batch: int | None, size: int) -> None:
    """Raises: CheckpointError: a graph takes too many images at a time."""
    if batch is not None and not 1 <= batch <= MAX_BATCH_PX // size**2:
        raise CheckpointError(
            f"{path}: takes {batch:,} images of {size} px at a time, expected 1 to {MAX_BATCH_PX // size**2:,}"
        )
