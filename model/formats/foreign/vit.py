"""State dicts of the vision transformers of insightface and CVLface."""

from __future__ import annotations

import dataclasses
import re

from model.backbones.vit import SHAPES
from model.formats.foreign.contents import Tensors
from model.formats.foreign.match import Match, MisfitError
from model.options import Choice
from pipeline.named_specs import NAMED_SPECS
from pipeline.spec import MAX_SIZE_PX

KEYS = (
    "blocks.0.attn.qkv.weight",
    "patch_embed.proj.weight",
    "pos_embed",
    "feature.0.weight",
    "feature.3.running_mean",
)
_LAYERS = {
    "self_attn.in_proj_weight": "attn.qkv.weight",
    "self_attn.out_proj": "attn.proj",
    "linear1": "mlp.fc1",
    "linear2": "mlp.fc2",
}
_SIZE_PX = 112  # at which all of them were trained; patches of 9 px leave 4 px out


def read_vit(tensors: Tensors, prefix: str) -> Match:
    """A transformer whose width, depth, patches and hidden layer are those of a known one. Raises: MisfitError: of none."""
    if any(name.startswith("keypoint_linear") for name in tensors):
        raise MisfitError("its keypoint_linear takes landmarks beside the image (KP-RPE), which nothing here passes on")
    kernel, hidden = tensors["patch_embed.proj.weight"], tensors.get("blocks.0.mlp.fc1.weight")
    depth = len({name for name in tensors if re.fullmatch(r"blocks\.\d{1,5}\.attn\.qkv\.weight", name)})
    found = (kernel.shape[-1], kernel.shape[0], depth, None if hidden is None else hidden.shape[0])
    known = {name: one for name, one in SHAPES.items() if one.faces}
    name = next((name for name, one in known.items() if (one.patch, one.width, one.depth, one.mlp) == found), None)
    if name is None:
        raise MisfitError(
            "patches of {} px, width {}, {} layers and a hidden layer of {} are no transformer here".format(*found)
        )
    project, _, size = name.partition("_vit_")
    return Match(
        title=f"{project.replace('cvl', 'CVL')} ViT {size}",
        choice=Choice(name),
        spec=dataclasses.replace(NAMED_SPECS["insightface"], size=_image_size(tensors, SHAPES[name].patch)),
        rename=_name,
        unused=("mask_token",),
    )


def _image_size(tensors: Tensors, patch: int) -> int:
    """Side of the images, px, from the number of positions."""
    shape = tuple(tensors["pos_embed"].shape)
    side = round(shape[1] ** 0.5) if len(shape) == 3 else 0
    if side < 1 or side * side != shape[1] or side * patch > MAX_SIZE_PX:
        raise MisfitError(f"pos_embed is {shape}, expected (1, patches of a square, width)")
    return _SIZE_PX if side == _SIZE_PX // patch else side * patch


def _name(name: str) -> str:
    if name == "positions":
        return "pos_embed"
    first, rest = name.split(".", 1)
    if first == "patches":
        return f"patch_embed.proj.{rest}"
    if first == "embedding":
        index, leaf = rest.split(".")
        return f"feature.{int(index) - 1}.{leaf}"
    if rest.startswith("norm."):
        return rest
    number, rest = rest.removeprefix("layers.").split(".", 1)
    for ours, theirs in _LAYERS.items():
        if rest.startswith(ours):
            return f"blocks.{number}.{theirs}{rest.removeprefix(ours)}"
    return f"blocks.{number}.{rest}"
