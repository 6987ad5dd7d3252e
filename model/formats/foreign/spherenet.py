"""State dicts of SphereNets, the format of the reference's released checkpoints."""

from __future__ import annotations

import re

import torch

from model.backbones import build_backbone
from model.backbones.spherenet import infer_spherenet
from model.formats.foreign.contents import Tensors
from model.formats.foreign.match import Match, MisfitError
from model.options import Choice
from pipeline.spec import Preprocessing
from shards.messages import counted


def spherenet_prefixes(tensors: Tensors) -> list[str]:
    """Prefixes, such as ``module.``, under which the numbered layers of a SphereNet lie."""
    shapes: dict[str, list[tuple[int, ...]]] = {}
    for name in sorted(tensors, key=_layer_order):
        if found := re.match(r"((?:[^.0-9][^.]*\.)*)[0-9]", name):
            shapes.setdefault(found[1], []).append(tuple(tensors[name].shape))
    return [prefix for prefix, found in shapes.items() if infer_spherenet(found) is not None]


def read_spherenet(tensors: Tensors, prefix: str) -> Match:
    """Matches layers by order and shape.

    Keys differ between files: layer indices depend on pooling, dropout and empty stages. The order of the layers is
    always the same.

    Raises:
        MisfitError: they are those of no SphereNet.
    """
    names = sorted((name for name in tensors if re.match("[0-9]", name)), key=_layer_order)
    known = infer_spherenet([tuple(tensors[name].shape) for name in names])
    if known is None:
        raise MisfitError("it has other layers")
    depth, image_size, pooling = known
    spec = Preprocessing()
    if image_size != spec.size:
        raise MisfitError(f"it takes images of {image_size} px, expected {spec.size} px in a bare state dict")
    choice = Choice(f"spherenet{depth}", {"pooling": True} if pooling else {})
    with torch.device("meta"):
        ours = list(build_backbone(choice.name, image_size=spec.size, **choice.options).state_dict())
    if len(names) != len(ours):
        raise MisfitError(f"it has {counted(len(names), 'tensor')}, spherenet{depth} has {len(ours)}")
    return Match(
        title=f"reference SphereNet-{depth}",
        choice=choice,
        spec=spec,
        rename=dict(zip(ours, names, strict=True)).__getitem__,
    )


def _layer_order(name: str) -> list[tuple[int, str]]:
    """Sort key: layer indices as numbers, weight before bias."""
    order = {"weight": 0, "bias": 1}
    parts = name.split(".")
    return [(int(part), "") if re.fullmatch(r"[0-9]{1,9}", part) else (order.get(part, 0), part) for part in parts]
