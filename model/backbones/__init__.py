"""Backbones by name: (N, 3, S, S) float in -1..1 -> (N, 512) float, not normalised."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable

from torch import nn

from model.backbones import densenet, mobilefacenet, residual, spherenet, vit
from model.backbones.layers import EMBEDDING_SIZE, STRIDE
from model.options import OptionError
from shards.arguments import shown

__all__ = ["BACKBONES", "EMBEDDING_SIZE", "Backbone", "build_backbone", "check_backbone"]


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
    stride: int = STRIDE
    options: tuple[str, ...] = ("pooling", "dropout")
    batch_norm: bool = True


def _family(
    family: str, build: Callable[..., nn.Module], depths: Iterable[int], source: str, *, batch_norm: bool = True
) -> dict[str, Backbone]:
    """Backbones named after family and depth."""
    return {
        f"{family}{depth}": Backbone(
            build=functools.partial(build, depth), family=family, source=source, batch_norm=batch_norm
        )
        for depth in depths
    }


_irse = functools.partial(residual.ir, squeeze=True)
_seresnet = functools.partial(residual.resnet, squeeze=True)
BACKBONES: dict[str, Backbone] = {
    **_family(
        "spherenet", spherenet.spherenet, spherenet.BLOCKS, "Liu et al., SphereFace, CVPR 2017", batch_norm=False
    ),
    **_family("ir", residual.ir, residual.IR_UNITS, "Deng et al., ArcFace, CVPR 2019"),
    **_family("irse", _irse, residual.IR_UNITS, "Deng et al., ArcFace, CVPR 2019"),
    **_family("resnet", residual.resnet, residual.RESNET_BLOCKS, "He et al., Deep residual learning, CVPR 2016"),
    **_family("seresnet", _seresnet, (50,), "Hu et al., Squeeze-and-excitation networks, CVPR 2018"),
    **_family("densenet", densenet.densenet, densenet.PLANS, "Huang et al., Densely connected networks, CVPR 2017"),
    "mobilefacenet": Backbone(
        build=mobilefacenet.mobilefacenet,
        family="mobilefacenet",
        source="Chen et al., MobileFaceNets, CCBR 2018",
        options=(),
    ),
    "vit_small": Backbone(
        build=vit.VisionTransformer,
        family="vit",
        source="Dosovitskiy et al., An image is worth 16x16 words, ICLR 2021",
        stride=vit.PATCH,
        options=("dropout",),
    ),
}


def build_backbone(name: str, *, image_size: int = 128, **options: object) -> nn.Module:
    """Builds a backbone with initial weights: (N, 3, S, S) float in -1..1 -> (N, 512) float, not normalised.

    Args:
        name: a key of ``BACKBONES``.
        image_size: side S of the input in px.
        options: see ``Backbone``; each backbone has its own defaults.

    Raises:
        OptionError: see ``check_backbone``.
    """
    return check_backbone(name, image_size=image_size, **options).build(image_size=image_size, **options)


def check_backbone(name: str, *, image_size: int = 128, **options: object) -> Backbone:
    """Validates the arguments of ``build_backbone`` without building the backbone.

    Returns:
        The registered backbone.

    Raises:
        OptionError: unknown name or option, invalid value, or an image size that is not a multiple of the stride.
    """
    if not isinstance(name, str) or name not in BACKBONES:
        raise OptionError(f"backbone {shown(name)} is unknown; choose from {', '.join(BACKBONES)}")
    backbone = BACKBONES[name]
    if type(image_size) is not int or image_size < 1 or image_size % backbone.stride:
        raise OptionError(
            f"{name} cannot take images of {shown(image_size)} px; choose a multiple of {backbone.stride}, such as 112 or 128"
        )
    for option, value in options.items():
        if option not in backbone.options:
            raise OptionError(
                f"{name} has no option {option!r}; leave it out (it has: {', '.join(backbone.options) or 'none'})"
            )
        _check_value(name, option, value)
    return backbone


def _check_value(name: str, option: str, value: object) -> None:
    if option == "pooling" and not isinstance(value, bool):
        raise OptionError(f"pooling of {name} is {shown(value)}; expected True or False")
    if option == "dropout" and not (isinstance(value, int | float) and 0 <= value < 1):
        raise OptionError(f"dropout of {name} is {shown(value)}; expected a probability of 0 or more, below 1")
