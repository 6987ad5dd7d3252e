"""State dicts of facenet-pytorch's InceptionResnetV1."""

from __future__ import annotations

from model.formats.foreign.contents import Tensors
from model.formats.foreign.match import Match
from model.options import Choice
from pipeline.named_specs import NAMED_SPECS

KEYS = ("conv2d_1a.conv.weight", "repeat_1.0.branch0.conv.weight", "last_linear.weight", "last_bn.running_mean")
_STEM = {"0": "1a", "1": "2a", "2": "2b", "4": "3b", "5": "4a", "6": "4b"}
_REPEATS = {"7": "repeat_1", "9": "repeat_2", "11": "repeat_3"}
_GRIDS = {"8": "mixed_6a", "10": "mixed_7a"}
_LAST = {"15": "last_linear", "16": "last_bn"}


def read_inception(tensors: Tensors, prefix: str) -> Match:
    """Inception-ResNet-v1 with 512 dimensions; no layer depends on the size of the images."""
    return Match(
        title="facenet-pytorch InceptionResnetV1",
        choice=Choice("inception_resnet_v1"),
        spec=NAMED_SPECS["facenet"],
        rename=_name,
    )


def _name(name: str) -> str:
    first, rest = name.split(".", 1)
    if first in _STEM:
        return f"conv2d_{_STEM[first]}.{_unit(rest)}"
    if first in _LAST:
        return f"{_LAST[first]}.{rest}"
    if first in _GRIDS:
        return f"{_GRIDS[first]}.{_branch(rest)}"
    number, rest = rest.split(".", 1)
    block = "block8" if (first, number) == ("11", "5") else f"{_REPEATS[first]}.{number}"
    if rest.startswith("convolution."):
        return f"{block}.{rest.replace('convolution', 'conv2d')}"
    return f"{block}.{_branch(rest.removeprefix('branches.'))}"


def _branch(rest: str) -> str:
    """``branches.1.2.0.weight``, or ``branches.0.0.weight`` of a branch of one layer."""
    _, branch, rest = rest.split(".", 2)
    number, below = rest.split(".", 1)
    layer = f"{number}.{_unit(below)}" if below.count(".") else _unit(rest)
    return f"branch{branch}.{layer}"


def _unit(rest: str) -> str:
    index, leaf = rest.split(".")
    return f"{('conv', 'bn')[int(index)]}.{leaf}"
