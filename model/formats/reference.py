"""Bare state dicts of SphereNets, the format of the reference's released checkpoints."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from model.backbones.spherenet import infer_spherenet, spherenet
from model.errors import CheckpointError
from model.formats.checkpoint import Content
from shards.messages import counted

REFERENCE_SIZE_PX = 128


def nested_state(path: Path, content: Content) -> tuple[Content, str]:
    """The bare state dict that a training script saved among other things, such as its epoch and optimizer.

    Returns:
        The content itself if no value is a dict, otherwise the only value that is the state dict of a SphereNet; and
        a line that names what is left out, empty if nothing is.

    Raises:
        CheckpointError: no value is such a state dict, or several are.
    """
    nested = [name for name, value in content.items() if isinstance(value, dict)]
    if not nested:
        return content, ""
    fitting = [name for name in nested if _spherenet_of(content[name]) is not None]
    if len(fitting) != 1:
        found = f"{len(fitting)} state dicts of SphereNets" if fitting else "no state dict of a SphereNet"
        raise CheckpointError(
            f"{path}: holds {found} in {_listed(fitting or list(content))};"
            " save the network's alone: torch.save(network.state_dict(), ...)"
        )
    others = [name for name in content if name != fitting[0]]
    left_out = f", without {_listed(others)}" if others else ""
    return content[fitting[0]], f"{path}: took {_listed(fitting)}{left_out}"


def _spherenet_of(state: Content) -> tuple[int, int, bool] | None:
    values = [state[name] for name in sorted(state, key=_layer_order)]
    if not values or not all(isinstance(value, torch.Tensor) for value in values):
        return None
    return infer_spherenet([tuple(value.shape) for value in values])


def _listed(names: list[Any], most: int = 5) -> str:
    """Names of a file, which may be hostile: printable ASCII, not too many."""
    shown = [ascii(str(name))[1:-1][:40] for name in names[:most]]
    return ", ".join([*shown, *(["..."] if len(names) > most else [])])


def from_state_dict(path: Path, state: Content) -> tuple[nn.Module, str]:
    """Builds a SphereNet from a bare state dict, matching layers by order and shape.

    Keys differ between files: layer indices depend on pooling, dropout and empty stages, and DataParallel adds the
    prefix ``module.``. The order of the layers is always the same.

    Args:
        path: the file, for error messages.
        state: its content.

    Returns:
        The backbone and its name, such as ``spherenet20:pooling=true``.

    Raises:
        CheckpointError: the content is not a state dict of a SphereNet for 128 px.
    """
    names = sorted(state, key=_layer_order)
    values = [state[name] for name in names]
    if not values or not all(isinstance(value, torch.Tensor) for value in values):
        raise CheckpointError(f"{path}: neither a checkpoint of this tool nor a bare state dict of tensors")
    known = infer_spherenet([tuple(value.shape) for value in values])
    if known is None:
        raise CheckpointError(
            f"{path}: no SphereNet (4, 10, 20, 36 or 64 layers) has its {counted(len(values), 'tensor')}"
        )
    depth, image_size, pooling = known
    if image_size != REFERENCE_SIZE_PX:
        raise CheckpointError(
            f"{path}: spherenet{depth} for {image_size} px images; expected {REFERENCE_SIZE_PX} px in a bare state dict"
        )
    backbone = spherenet(depth, image_size=image_size, pooling=pooling)
    target = backbone.state_dict()
    if len(target) != len(values):
        raise CheckpointError(f"{path}: {counted(len(values), 'tensor')}, spherenet{depth} has {len(target)}")
    for name, value, (key, expected) in zip(names, values, target.items(), strict=True):
        if value.shape != expected.shape:
            raise CheckpointError(
                f"{path}: {name} is {tuple(value.shape)}, spherenet{depth} has {tuple(expected.shape)} at {key}"
            )
    backbone.load_state_dict(dict(zip(target, values, strict=True)))
    return backbone, f"spherenet{depth}{':pooling=true' * pooling}"


def _layer_order(name: object) -> list[tuple[int, str]]:
    """Sort key: layer indices as numbers, weight before bias."""
    order = {"weight": 0, "bias": 1}
    parts = str(name).removeprefix("module.").split(".")
    return [(int(part), "") if re.fullmatch(r"[0-9]{1,9}", part) else (order.get(part, 0), part) for part in parts]
