"""The reference's released checkpoints: bare state dicts of SphereNets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from model.backbones.spherenet import recognise, spherenet
from model.errors import CheckpointError

_REFERENCE_SIZE = 128  # px that the reference trains at


def from_state_dict(path: Path, state: dict[str, Any]) -> tuple[nn.Module, str]:
    """A SphereNet from a bare state dict, by the shapes of its layers in order.

    Layer indices in the keys differ with pooling, dropout and empty stages, and a ``module.`` prefix comes from
    DataParallel; the order of the layers does not change.
    """
    names = sorted(state, key=_layer_order)
    values = [state[name] for name in names]
    if not values or not all(isinstance(value, torch.Tensor) for value in values):
        raise CheckpointError(f"{path}: neither a checkpoint of this tool nor a bare state dict of tensors")
    known = recognise([tuple(value.shape) for value in values])
    if known is None:
        raise CheckpointError(f"{path}: {len(values)} tensors that fit no SphereNet (4, 10, 20, 36 or 64 layers)")
    depth, image_size, pooling = known
    if image_size != _REFERENCE_SIZE:
        raise CheckpointError(
            f"{path}: spherenet{depth} for {image_size} px images; bare state dicts are read for {_REFERENCE_SIZE} px only"
        )
    backbone = spherenet(depth, image_size=image_size, pooling=pooling)
    target = backbone.state_dict()
    if len(target) != len(values):
        raise CheckpointError(f"{path}: {len(values)} tensors, spherenet{depth} has {len(target)}")
    for name, value, (ours, expected) in zip(names, values, target.items(), strict=True):
        if value.shape != expected.shape:
            raise CheckpointError(
                f"{path}: {name} is {tuple(value.shape)}, spherenet{depth} has {tuple(expected.shape)} at {ours}"
            )
    backbone.load_state_dict(dict(zip(target, values, strict=True)))
    return backbone, f"spherenet{depth}{':pooling=true' * pooling}"


def _layer_order(name: str) -> list[tuple[int, str]]:
    order = {"weight": 0, "bias": 1}
    parts = str(name).removeprefix("module.").split(".")
    return [(int(part), "") if part.isdigit() else (order.get(part, 0), part) for part in parts]
