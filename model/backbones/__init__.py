"""Backbones by name: (N, 3, S, S) float in -1..1 -> (N, 512) float, not normalised."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from model.backbones import densenet, inception, mobilefacenet, residual, spherenet, vit
from model.backbones.layers import EMBEDDING_SIZE, STRIDE
from model.options import Choice, OptionError, parse_choice
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
        min_size: smallest image size in px.
        options: names of constructor arguments. ``pooling`` (bool) adds global average pooling before the last linear
            layer; ``dropout`` (0..1) is the probability before that layer; ``origin`` (a name) is whose variant of the
            graph it is.
        batch_norm: the backbone has batch normalisation, so that a training batch needs at least two images.
    """

    build: Callable[..., nn.Module]
    family: str
    source: str
    stride: int = STRIDE
    min_size: int = 1
    options: tuple[str, ...] = ("pooling", "dropout")
    batch_norm: bool = True


def _family(
    family: str,
    build: Callable[..., nn.Module],
    depths: Iterable[int],
    source: str,
    *,
    suffix: str = "",
    **fields: Any,
) -> dict[str, Backbone]:
    """Backbones named after family, depth and suffix."""
    return {
        f"{family}{depth}{suffix}": Backbone(
            build=functools.partial(build, depth), family=family + suffix, source=source, **fields
        )
        for depth in depths
    }


_ARCFACE, _ADAFACE = "Deng et al., ArcFace, CVPR 2019", "Kim et al., AdaFace, CVPR 2022"
_IR_OPTIONS = ("pooling", "dropout", "origin")
_irse = functools.partial(residual.ir, squeeze=True)
_irbse = functools.partial(residual.irb, squeeze=True)
_seresnet = functools.partial(residual.resnet, squeeze=True)
_stem7 = functools.partial(residual.resnet, stem=7)


def _transformer(name: str, shape: vit.Shape) -> Backbone:
    sources = {
        "vit": "Dosovitskiy et al., An image is worth 16x16 words, ICLR 2021",
        "insightface_vit": "An et al., Killing two birds with one stone, CVPR 2022",
        "cvlface_vit": "Kim et al., KeyPoint relative position encoding, CVPR 2024",
    }
    family = name.rpartition("_")[0]
    return Backbone(
        build=functools.partial(vit.VisionTransformer, name),
        family=family,
        source=sources[family],
        stride=8 if shape.patch == 8 else STRIDE,  # patches of 9 px leave a border of any image
        options=("dropout",),
    )


BACKBONES: dict[str, Backbone] = {
    **_family(
        "spherenet", spherenet.spherenet, spherenet.BLOCKS, "Liu et al., SphereFace, CVPR 2017", batch_norm=False
    ),
    **_family("ir", residual.ir, residual.IR_UNITS, _ARCFACE, options=_IR_OPTIONS),
    **_family("irse", _irse, residual.IR_UNITS, _ARCFACE, options=_IR_OPTIONS),
    **_family("irb", residual.irb, residual.IRB_UNITS, _ADAFACE),
    **_family("irbse", _irbse, residual.IRB_UNITS, _ADAFACE),
    **_family("resnet", residual.resnet, residual.RESNET_BLOCKS, "He et al., Deep residual learning, CVPR 2016"),
    **_family("resnet", _stem7, residual.RESNET_BLOCKS, "Lai & Lam, APSIPA ASC 2021, release of 2024", suffix="_stem7"),
    **_family("seresnet", _seresnet, (50,), "Hu et al., Squeeze-and-excitation networks, CVPR 2018"),
    **_family("densenet", densenet.densenet, densenet.PLANS, "Huang et al., Densely connected networks, CVPR 2017"),
    "mobilefacenet": Backbone(
        build=mobilefacenet.mobilefacenet,
        family="mobilefacenet",
        source="Chen et al., MobileFaceNets, CCBR 2018",
        options=(),
    ),
    "inception_resnet_v1": Backbone(
        build=inception.inception_resnet_v1,
        family="inception_resnet_v1",
        source="Szegedy et al., Inception-v4, AAAI 2017",
        min_size=inception.MIN_SIZE_PX,
        options=("dropout",),
    ),
    **{name: _transformer(name, shape) for name, shape in vit.SHAPES.items()},
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
    if type(image_size) is not int or image_size < backbone.min_size or image_size % backbone.stride:
        smallest = f" from {backbone.min_size} px on" if backbone.min_size > 1 else ""
        raise OptionError(
            f"{name} cannot take images of {shown(image_size)} px; choose a multiple of {backbone.stride}{smallest},"
            " such as 112 or 128"
        )
    for option, value in options.items():
        if option not in backbone.options:
            raise OptionError(
                f"{name} has no option {option!r}; leave it out (it has: {', '.join(backbone.options) or 'none'})"
            )
        _check_value(name, option, value)
    return backbone


def parse_backbone(text: str) -> Choice:
    """Reads text such as ``spherenet20:pooling=true``. Raises: OptionError: it is not valid."""
    choice = parse_choice(text)
    check_backbone(choice.name, **choice.options)
    return choice


def _check_value(name: str, option: str, value: object) -> None:
    if option == "pooling" and not isinstance(value, bool):
        raise OptionError(f"pooling of {name} is {shown(value)}; expected True or False")
    if option == "dropout" and not (isinstance(value, int | float) and 0 <= value < 1):
        raise OptionError(f"dropout of {name} is {shown(value)}; expected a probability of 0 or more, below 1")
    if option == "origin" and value not in residual.ORIGINS:
        raise OptionError(f"origin of {name} is {shown(value)}; expected {' or '.join(residual.ORIGINS)}")
