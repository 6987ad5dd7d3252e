"""From the tensors of another project's network to the state dict of the same graph here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch

from model.backbones import build_backbone
from model.backbones.layers import EMBEDDING_SIZE
from model.formats.foreign.contents import Tensors
from model.options import Choice
from pipeline.spec import Preprocessing
from shards.messages import counted

BATCH_NORM_EPSILON = 1e-5  # of our batch normalisation, PyTorch's default


class MisfitError(Exception):
    """Tensors that are not those of the network which their names announce; the text says what differs."""


class Match(NamedTuple):
    """How a network of another project is ours.

    Attributes:
        title: the network in the words of its project, such as ``AdaFace IR-50``.
        choice: our backbone of the same graph.
        spec: how its project prepares images.
        rename: their name of one of our tensors.
        fills: values of tensors that only ours has, by a pattern of our name. They change no output.
        folded: (their bias of the last linear layer, our running mean of the batch normalisation after it, which
            takes the bias in); None if there is no such bias.
        epsilon: of their batch normalisation, where it differs from ours.
        unused: their tensors that only training uses.
    """

    title: str
    choice: Choice
    spec: Preprocessing
    rename: Callable[[str], str]
    fills: Mapping[str, float] = MappingProxyType({})
    folded: tuple[str, str] | None = None
    epsilon: float = BATCH_NORM_EPSILON
    unused: tuple[str, ...] = ()


def translate(match: Match, tensors: Tensors) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The state dict of ``match.choice``, and the names of tensors of a classifier beside the network.

    Raises:
        MisfitError: a tensor is missing, has another shape or type, or does not belong to the network.
    """
    with torch.device("meta"):
        backbone = build_backbone(match.choice.name, image_size=match.spec.size, **match.choice.options)
    state, used = dict[str, torch.Tensor](), set(match.unused)
    for name, expected in backbone.state_dict().items():
        theirs = match.rename(name)
        if theirs in tensors and _lost_count(theirs, tensors[theirs]):
            state[name] = torch.zeros_like(expected, device="cpu")
            used.add(theirs)
        elif theirs in tensors:
            state[name] = _checked(theirs, tensors[theirs], expected)
            used.add(theirs)
        else:
            state[name] = _filled(match, name, theirs, expected)
    if match.folded is not None and match.folded[0] in tensors:
        bias, mean = match.folded
        state[mean] = state[mean].float() - _checked(bias, tensors[bias], state[mean]).float()
        used.add(bias)
    if match.epsilon != BATCH_NORM_EPSILON:
        for name in [name for name in state if name.endswith("running_var")]:
            state[name] = state[name].float() + (match.epsilon - BATCH_NORM_EPSILON)
    return state, _classifiers({name: tensor for name, tensor in tensors.items() if name not in used})


def _lost_count(name: str, tensor: torch.Tensor) -> bool:
    """Whether a counter of batches became a float when somebody converted all tensors; no output depends on it."""
    return name.endswith("num_batches_tracked") and tensor.is_floating_point() and tensor.dim() == 0


def _checked(name: str, tensor: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    if tensor.shape != expected.shape:
        raise MisfitError(f"{name} is {tuple(tensor.shape)}, expected {tuple(expected.shape)}")
    if tensor.layout is not torch.strided or tensor.is_floating_point() != expected.is_floating_point():
        raise MisfitError(f"{name} has type {tensor.dtype}, {tensor.layout}, expected {expected.dtype}")
    return tensor


def _filled(match: Match, name: str, theirs: str, expected: torch.Tensor) -> torch.Tensor:
    fills = {r"num_batches_tracked": 0, **match.fills}
    value = next((value for pattern, value in fills.items() if re.search(f"(^|[.]){pattern}$", name)), None)
    if value is None:
        raise MisfitError(f"{theirs} is missing, expected {tuple(expected.shape)}")
    return torch.full(expected.shape, value, dtype=expected.dtype)


def _classifiers(left: Tensors) -> list[str]:
    """Names of tensors of classifiers: a matrix with a side of 512, and vectors. Raises: MisfitError: others are left."""
    groups: dict[str, list[str]] = {}
    for name in left:
        groups.setdefault(name.partition(".")[0], []).append(name)
    for names in groups.values():
        large = [name for name in names if left[name].dim() > 1]
        if len(large) != 1 or left[large[0]].dim() != 2 or EMBEDDING_SIZE not in left[large[0]].shape:
            found = (large or names)[0]
            raise MisfitError(
                f"{counted(len(left), 'tensor')} more than expected, such as {found} {tuple(left[found].shape)}"
            )
    return list(left)
