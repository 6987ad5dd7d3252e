"""Every backbone by its name, and the one way to build it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from model.backbones import densenet, ir, mobilefacenet, resnet, spherenet, vit
from shards.errors import LrfrError


class BackboneError(LrfrError):
    """A backbone that there is not, or not so. One line."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Backbone:
    """What can be built under a name.

    Attributes:
        build: takes ``image_size`` (px) and ``options``.
        family: networks that differ in depth only.
        source: the paper.
        stride: px of the input behind one cell, or patch, of the last feature map; image sizes are multiples of it.
        options: ``pooling`` (bool), global average pooling before the last linear layer; ``dropout`` (0..1), the
            probability before it.
        batch_norm: trained with statistics of the batch, so on at least two images at once.
    """

    build: Callable[..., nn.Module]
    family: str
    source: str
    stride: int
    options: tuple[str, ...]
    batch_norm: bool = True


_SPHEREFACE = "Liu et al., SphereFace, CVPR 2017"
_RESNET = "He et al., Deep residual learning, CVPR 2016"
_SENET = "Hu et al., Squeeze-and-excitation networks, CVPR 2018"
_DENSENET = "Huang et al., Densely connected networks, CVPR 2017"
_ARCFACE = "Deng et al., ArcFace, CVPR 2019"
_MOBILEFACENET = "Chen et al., MobileFaceNets, CCBR 2018"
_VIT = "Dosovitskiy et al., An image is worth 16x16 words, ICLR 2021"


def _family(
    family: str, build: Callable[..., nn.Module], depths: Iterable[int], source: str, stride: int, **fields: Any
) -> dict[str, Backbone]:
    """``family`` and a depth -> the backbone, for each of ``depths``; all with pooling and dropout."""
    return {
        f"{family}{depth}": Backbone(
            build=functools.partial(build, depth),
            family=family,
            source=source,
            stride=stride,
            options=("pooling", "dropout"),
            **fields,
        )
        for depth in depths
    }


BACKBONES: dict[str, Backbone] = {
    **_family("spherenet", spherenet.spherenet, spherenet.BLOCKS, _SPHEREFACE, spherenet.STRIDE, batch_norm=False),
    **_family("ir", ir.ir, ir.UNITS, _ARCFACE, ir.STRIDE),
    **_family("irse", functools.partial(ir.ir, squeeze=True), ir.UNITS, _ARCFACE, ir.STRIDE),
    **_family("resnet", resnet.resnet, resnet.BLOCKS, _RESNET, resnet.STRIDE),
    **_family("seresnet", functools.partial(resnet.resnet, squeeze=True), (50,), _SENET, resnet.STRIDE),
    **_family("densenet", densenet.densenet, densenet.PLANS, _DENSENET, densenet.STRIDE),
    "mobilefacenet": Backbone(
        build=mobilefacenet.mobilefacenet,
        family="mobilefacenet",
        source=_MOBILEFACENET,
        stride=mobilefacenet.STRIDE,
        options=(),
    ),
    "vit_small": Backbone(
        build=vit.VisionTransformer, family="vit", source=_VIT, stride=vit.PATCH, options=("dropout",)
    ),
}


def build_backbone(name: str, *, image_size: int = 128, **options: Any) -> nn.Module:
    """A freshly initialised backbone for square images of ``image_size`` px. Raises: BackboneError: see ``check_backbone``."""
    return check_backbone(name, image_size=image_size, **options).build(image_size=image_size, **options)


def check_backbone(name: str, *, image_size: int = 128, **options: Any) -> Backbone:
    """What would be built, without building it.

    Args:
        image_size: px.
        options: see ``Backbone``; where left out, the backbone's own defaults hold.

    Raises:
        BackboneError: the name is unknown, the backbone is not for this size, or an option or its value is not for it.
    """
    if name not in BACKBONES:
        raise BackboneError(f"backbone {name!r} is unknown; choose from {', '.join(BACKBONES)}")
    backbone = BACKBONES[name]
    if not isinstance(image_size, int) or image_size < 1 or image_size % backbone.stride:
        raise BackboneError(
            f"{name} cannot take images of {image_size!r} px; choose a multiple of {backbone.stride}, such as 112 or 128"
        )
    for option, value in options.items():
        if option not in backbone.options:
            raise BackboneError(
                f"{name} has no option {option!r}; leave it out (it has: {', '.join(backbone.options) or 'none'})"
            )
        _check_value(name, option, value)
    return backbone


def _check_value(name: str, option: str, value: Any) -> None:
    if option == "pooling" and not isinstance(value, bool):
        raise BackboneError(f"pooling of {name} is {value!r}; expected True or False")
    if option == "dropout" and not (isinstance(value, int | float) and 0 <= value < 1):
        raise BackboneError(f"dropout of {name} is {value!r}; expected a probability of 0 or more, below 1")
