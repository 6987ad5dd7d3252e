"""Registry of backbones by name."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable

from torch import nn

from model.backbones import densenet, ir, mobilefacenet, resnet, spherenet, vit
from shards.errors import LrfrError


class BackboneError(LrfrError):
    """Unknown backbone or invalid option."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Backbone:
    """A registered backbone.

    Attributes:
        build: constructor with the arguments ``image_size`` (px) and ``options``.
        family: name shared by networks that differ in depth only.
        source: the paper.
        stride: input px per cell of the last feature map, or per patch. Image sizes are multiples of it.
        options: names of constructor arguments. ``pooling`` (bool) adds global average pooling before the last linear
            layer; ``dropout`` (0..1) is the probability before that layer.
        batch_norm: the backbone has batch normalisation, so that a training batch needs at least two images.
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
    family: str,
    build: Callable[..., nn.Module],
    depths: Iterable[int],
    source: str,
    stride: int,
    *,
    batch_norm: bool = True,
) -> dict[str, Backbone]:
    """Backbones named after family and depth, with pooling and dropout."""
    return {
        f"{family}{depth}": Backbone(
            build=functools.partial(build, depth),
            family=family,
            source=source,
            stride=stride,
            options=("pooling", "dropout"),
            batch_norm=batch_norm,
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


def build_backbone(name: str, *, image_size: int = 128, **options: object) -> nn.Module:
    """Builds a backbone with initial weights: (N, 3, S, S) float in -1..1 -> (N, 512) float, not normalised.

    Args:
        name: a key of ``BACKBONES``.
        image_size: side S of the input in px.
        options: see ``Backbone``; each backbone has its own defaults.

    Raises:
        BackboneError: see ``check_backbone``.
    """
    return check_backbone(name, image_size=image_size, **options).build(image_size=image_size, **options)


def check_backbone(name: str, *, image_size: int = 128, **options: object) -> Backbone:
    """Validates the arguments of ``build_backbone`` without building the backbone.

    Returns:
        The registered backbone.

    Raises:
        BackboneError: unknown name or option, invalid value, or an image size that is not a multiple of the stride.
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


def _check_value(name: str, option: str, value: object) -> None:
    if option == "pooling" and not isinstance(value, bool):
        raise BackboneError(f"pooling of {name} is {value!r}; expected True or False")
    if option == "dropout" and not (isinstance(value, int | float) and 0 <= value < 1):
        raise BackboneError(f"dropout of {name} is {value!r}; expected a probability of 0 or more, below 1")
