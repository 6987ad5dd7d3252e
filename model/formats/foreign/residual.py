"""State dicts of residual networks: iresnet (insightface, MagFace), IR (AdaFace, CVLface, the reference), ResNet."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections.abc import Mapping, Sequence

from model.backbones.layers import STRIDE
from model.backbones.residual import IR_UNITS, IRB_UNITS, RESNET_BLOCKS
from model.formats.foreign.contents import Tensors
from model.formats.foreign.match import Match, MisfitError
from model.options import Choice
from pipeline.named_specs import NAMED_SPECS
from pipeline.spec import MAX_SIZE_PX, Preprocessing

IRESNET_KEYS = ("layer1.0.prelu.weight", "conv1.weight", "layer4.0.conv2.weight", "fc.weight", "features.running_mean")
IR_KEYS = ("input_layer.0.weight", "body.0.res_layer.1.weight", "output_layer.3.weight", "output_layer.4.running_mean")
RESNET_KEYS = ("bn_o1.running_mean", "conv1.weight", "layer1.0.conv3.weight", "fc.weight", "bn_o2.running_mean")
_IMPROVED = dict(enumerate(("bn1", "conv1", "bn2", "prelu", "conv2", "bn3")))
_BOTTLENECK = {0: "conv1", 1: "bn1", 3: "conv2", 4: "bn2", 6: "conv3", 7: "bn3"}
_ENDS = {  # our last layers: batch normalisation, dropout, flatten, linear, batch normalisation
    "iresnet": {"0": "bn2", "3": "fc", "4": "features"},
    "ir": {"0": "output_layer.0", "3": "output_layer.3", "4": "output_layer.4"},
    "resnet": {"0": "bn_o1", "3": "fc", "4": "bn_o2"},
}
_IR_SPECS = {"reference": "seed", "AdaFace": "adaface", "CVLface": "insightface", "face.evoLVe": "insightface"}
_MAGFACE_EPSILON = 2e-5
_NO_BIAS = {r"gate\.[13]\.bias": 0.0}  # of squeeze-and-excitation
_NOT_AFFINE = {r"7\.4\.weight": 1.0, r"7\.4\.bias": 0.0}  # the last batch normalisation


def read_iresnet(tensors: Tensors, prefix: str) -> Match:
    """insightface's iresnet, and MagFace's, which is the same graph with another epsilon and preprocessing."""
    units = tuple(_count(tensors, rf"layer{stage}\.(\d+)\.conv2\.weight") for stage in range(1, 5))
    depth = _depth("iresnet", units, IR_UNITS)
    size = _image_size(tensors, "fc.weight", channels=512, stride=STRIDE)
    magface = prefix.endswith(("features.module.", "module.features."))
    return Match(
        title=f"{'MagFace' if magface else 'insightface'} iresnet{100 if depth == 101 else depth}",
        choice=Choice(f"ir{depth}"),
        spec=dataclasses.replace(NAMED_SPECS["magface" if magface else "insightface"], size=size),
        rename=functools.partial(_layer_name, family="iresnet", stem=("conv1", "bn1", "prelu"), branch=_IMPROVED),
        folded=("fc.bias", "7.4.running_mean"),
        epsilon=_MAGFACE_EPSILON if magface else 1e-5,
    )


def _layer_name(name: str, *, family: str, stem: Sequence[str], branch: Mapping[int, str]) -> str:
    """The name of one of our tensors in a network whose stages are called ``layer1`` to ``layer4``, as torchvision's.

    Args:
        stem: names of the layers before the stages.
        branch: names of the layers of a residual branch, by their positions.
    """
    first, _, rest = name.partition(".")
    stage = int(first) - len(stem) + 1
    if stage < 1:
        return f"{stem[int(first)]}.{rest}"
    if stage > 4:
        return _end(family, rest)
    unit, kind, index, leaf = rest.split(".", 3)
    return f"layer{stage}.{unit}.{branch[int(index)] if kind == 'residual' else f'downsample.{index}'}.{leaf}"


def _end(family: str, rest: str) -> str:
    index, leaf = rest.split(".", 1)
    return f"{_ENDS[family][index]}.{leaf}"


def read_ir(tensors: Tensors, prefix: str) -> Match:
    """AdaFace's and CVLface's IR and IR-SE, and the reference's, whose units lack a batch normalisation."""
    widths = _unit_widths(tensors)
    units = tuple(len(list(group)) for _, group in itertools.groupby(widths))
    bottlenecks, reference = "body.0.res_layer.7.weight" in tensors, "body.0.res_layer.2.running_mean" not in tensors
    count = 9 if bottlenecks else 5 if reference else 6  # layers of a unit's branch before squeeze-and-excitation
    gate = next((gate for gate in ("se_block", str(count)) if f"body.0.res_layer.{gate}.fc1.weight" in tensors), None)
    size = _image_size(tensors, "output_layer.3.weight", channels=widths[-1], stride=STRIDE)
    depth = _depth("IR", units, IRB_UNITS if bottlenecks else IR_UNITS)
    origin = "reference" if reference else "adaface"
    project = _ir_project(reference, size, prefix)
    name = f"ir{'b' * bottlenecks}{'se' * (gate is not None)}{depth}"
    return Match(
        title=f"{project} IR{'-SE' * (gate is not None)}-{depth}",
        choice=Choice(name, {} if bottlenecks else {"origin": origin}),
        spec=dataclasses.replace(NAMED_SPECS[_IR_SPECS[project]], size=size),
        rename=lambda name: _ir_name(name, units, count, gate or ""),
        fills={**_NO_BIAS, **({} if "output_layer.4.weight" in tensors else _NOT_AFFINE)},
        folded=("output_layer.3.bias", "7.4.running_mean"),
    )


def _ir_project(reference: bool, size: int, prefix: str) -> str:
    if reference:
        return "reference" if size == Preprocessing().size else "face.evoLVe"
    return "CVLface" if prefix.endswith("net.") else "AdaFace"


def _unit_widths(tensors: Tensors) -> list[int]:
    """Output channels of each unit, which change from stage to stage: those of its last convolution."""
    count = _count(tensors, r"body\.(\d+)\.res_layer\.1\.weight")
    widths = []
    for unit in range(count):
        last = [tensors.get(f"body.{unit}.res_layer.{index}.weight") for index in (7, 4, 3)]
        kernel = next((one for one in last if one is not None and one.dim() == 4), None)
        if kernel is None:
            raise MisfitError(f"body.{unit}.res_layer has no second convolution")
        widths.append(kernel.shape[0])
    return widths


def _ir_name(name: str, units: tuple[int, ...], count: int, gate: str) -> str:
    first, _, rest = name.partition(".")
    if first in ("0", "1", "2"):
        return f"input_layer.{name}"
    if first == "7":
        return _end("ir", rest)
    unit, kind, index, leaf = rest.split(".", 3)
    body = f"body.{sum(units[: int(first) - 3]) + int(unit)}"
    if kind == "shortcut":
        return f"{body}.shortcut_layer.{index}.{leaf}"
    if int(index) < count:
        return f"{body}.res_layer.{index}.{leaf}"
    return f"{body}.res_layer.{gate}.{leaf.replace('gate.1', 'fc1').replace('gate.3', 'fc2')}"


def read_resnet(tensors: Tensors, prefix: str) -> Match:
    """The reference's ResNet (after face.evoLVe): a 7x7 stem of stride 2, as for ImageNet."""
    units = tuple(_count(tensors, rf"layer{stage}\.(\d+)\.conv3\.weight") for stage in range(1, 5))
    depth = _depth("ResNet", units, RESNET_BLOCKS)
    size = _image_size(tensors, "fc.weight", channels=2048, stride=2 * STRIDE)
    return Match(
        title=f"reference ResNet-{depth}",
        choice=Choice(f"resnet{depth}_stem7"),
        spec=dataclasses.replace(NAMED_SPECS["seed"], size=size),
        rename=functools.partial(
            _layer_name, family="resnet", stem=("conv1", "bn1", "relu", "maxpool"), branch=_BOTTLENECK
        ),
        folded=("fc.bias", "8.4.running_mean"),
    )


def _count(tensors: Tensors, pattern: str) -> int:
    """How many numbers, from 0 on without a gap, the names of ``pattern`` have."""
    numbers = {int(found[1]) for name in tensors if (found := re.fullmatch(pattern, name)) and len(found[1]) < 6}
    return next(number for number in itertools.count() if number not in numbers)


def _depth(title: str, units: tuple[int, ...], known: Mapping[int, tuple[int, ...]]) -> int:
    depth = next((depth for depth, counts in known.items() if counts == units), None)
    if depth is None:
        found, expected = ", ".join(map(str, units[:8])), "; ".join(", ".join(map(str, one)) for one in known.values())
        raise MisfitError(f"its stages have {found} units, no {title} here has: expected {expected}")
    return depth


def _image_size(tensors: Tensors, name: str, *, channels: int, stride: int) -> int:
    """Side of the images, px, from the inputs of the last linear layer."""
    shape = tuple(tensors[name].shape)
    cells = shape[1] // channels if len(shape) == 2 else 0
    side = round(cells**0.5)
    if cells < 1 or side * side * channels != shape[1] or side * stride > MAX_SIZE_PX:
        raise MisfitError(f"{name} is {shape}, expected {channels} x cells of a square")
    return side * stride
