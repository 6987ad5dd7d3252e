"""Bare state dicts of SphereNets, the format of the reference's released checkpoints."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from model.backbones.spherenet import infer_spherenet, spherenet
from model.errors import CheckpointError
from model.formats.checkpoint import Content

REFERENCE_SIZE_PX = 128


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
        raise CheckpointError(f"{path}: {len(values)} tensors that fit no SphereNet (4, 10, 20, 36 or 64 layers)")
    depth, image_size, pooling = known
    if image_size != REFERENCE_SIZE_PX:
        raise CheckpointError(
            f"{path}: spherenet{depth} for {image_size} px images; expected {REFERENCE_SIZE_PX} px in a bare state dict"
        )
    backbone = spherenet(depth, image_size=image_size, pooling=pooling)
    target = backbone.state_dict()
    if len(target) != len(values):
        raise CheckpointError(f"{path}: {len(values)} tensors, spherenet{depth} has {len(target)}")
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
    return [(int(part), "") if part.isdigit() else (order.get(part, 0), part) for part in parts]
