"""Stages of a backbone: layers grouped by output resolution, and freezing the first of them."""

from __future__ import annotations

import torch
from torch import nn

from model.backbones.vit import VisionTransformer
from model.options import OptionError


def stages(backbone: nn.Module, image_size: int) -> list[list[nn.Module]]:
    """Layers grouped by output resolution, from the input on.

    The stages of a transformer are the patch embedding and each encoder layer. The layers after the last feature map
    belong to no stage.

    Args:
        image_size: side of the input in px.
    """
    if isinstance(backbone, VisionTransformer):
        return [[backbone.patches], *([layer] for layer in backbone.encoder.layers)]
    found: list[list[nn.Module]] = []
    size, training = 0, backbone.training
    backbone.eval()
    with torch.no_grad():
        x = next(backbone.parameters()).new_zeros(1, 3, image_size, image_size)
        for layer in backbone.children():
            x = layer(x)
            if x.dim() < 4 or x.shape[-1] == 1:
                break
            if x.shape[-1] != size:
                found.append([])
            found[-1].append(layer)
            size = x.shape[-1]
    backbone.train(training)
    return found


def freeze_stages(backbone: nn.Module, count: int, image_size: int) -> None:
    """Excludes weights and batch statistics of the first ``count`` stages from training; see ``stages``.

    Raises:
        OptionError: the backbone has fewer stages.
    """
    known = stages(backbone, image_size) if count else []
    if count > len(known):
        raise OptionError(f"freeze is {count}, but the backbone has {len(known)} stages; choose at most {len(known)}")
    for layer in (layer for stage in known[:count] for layer in stage):
        layer.requires_grad_(False)
        for module in layer.modules():
            module.eval()
            module.train = _stay_in_eval  # type: ignore[method-assign, assignment]
    if count and isinstance(backbone, VisionTransformer):
        backbone.positions.requires_grad_(False)


def _stay_in_eval(mode: bool = True) -> None:
    """Replaces ``nn.Module.train`` of frozen modules: ``backbone.train()`` would update their batch statistics."""
