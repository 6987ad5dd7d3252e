"""The stages of a backbone, and keeping the first of them as they are."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from model.backbones.registry import BackboneError
from model.backbones.vit import VisionTransformer


def stages(backbone: nn.Module, image_size: int) -> list[list[nn.Module]]:
    """What works at one resolution, from the image on: in a convolutional network the layers whose output has one
    height; in a transformer the patches, then each encoder layer. The layers behind, which embed, are no stage.
    """
    if isinstance(backbone, VisionTransformer):
        return [[backbone.patches], *([layer] for layer in backbone.encoder.layers)]
    found: list[list[nn.Module]] = []
    height, training = 0, backbone.training
    backbone.eval()
    with torch.no_grad():
        x = next(backbone.parameters()).new_zeros(1, 3, image_size, image_size)
        for layer in backbone.children():
            x = layer(x)
            if x.dim() < 4 or x.shape[-1] == 1:
                break
            if x.shape[-1] != height:
                found.append([])
            found[-1].append(layer)
            height = x.shape[-1]
    backbone.train(training)
    return found


def freeze_stages(backbone: nn.Module, count: int, image_size: int) -> None:
    """Keeps weights and batch statistics of the first ``count`` stages as they are.

    Raises:
        BackboneError: there are not so many.
    """
    known = stages(backbone, image_size) if count else []
    if count > len(known):
        raise BackboneError(f"freeze is {count}, but there are {len(known)} stages to keep; choose as many at most")
    for layer in (layer for stage in known[:count] for layer in stage):
        layer.requires_grad_(False)
        for module in layer.modules():
            module.eval()
            module.train = _stays  # type: ignore[method-assign, assignment]  # backbone.train() would start it again
    if count and isinstance(backbone, VisionTransformer):
        backbone.positions.requires_grad_(False)


def _stays(mode: bool = True) -> Any:
    """In place of ``nn.Module.train``, whose result nothing reads."""
