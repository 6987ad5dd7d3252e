"""Small backbones whose embeddings differ between faces without training, and their checkpoints."""

from __future__ import annotations

import copy
import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from model.backbones import BACKBONES, build_backbone, spherenet
from model.formats.checkpoint import save_checkpoint
from model.formats.export_huggingface import write_folder
from model.formats.network import LoadedNetwork
from model.training.init import initialise_from_data
from pipeline.spec import Preprocessing

SMALL = Preprocessing(size=32)
NARROW = tuple(width // 8 for width in spherenet.WIDTHS)
TRAINING = {"backbone": "spherenet4", "steps": 7, "lr": 0.02, "views": [128, 8, 12, 16], "best": None}
FIRST = {backbone.family: name for name, backbone in reversed(BACKBONES.items())}  # of each family, with fewest layers


def by_family(names=tuple(BACKBONES)):
    """Backbones as parameters of a test: all but the first of a family are heavy, as they differ in depth only."""
    return [pytest.param(name, marks=() if name in FIRST.values() else pytest.mark.heavy) for name in names]


def small_backbone(seed: int = 0) -> nn.Module:
    """A new SphereNet-4 for 32 px in evaluation mode; embeddings of different images have different directions."""
    return copy.deepcopy(_initialised(seed, spherenet.WIDTHS))


@functools.cache
def _initialised(seed: int, widths: tuple[int, ...]) -> nn.Module:
    torch.manual_seed(seed)
    backbone = build_backbone("spherenet4", image_size=32)
    initialise_from_data(backbone, nn.Linear(512, 4), torch.randn(8, 3, 32, 32))
    return backbone.eval()


def save_small(path: Path, **changes) -> nn.Module:
    """Writes a checkpoint of ``small_backbone`` after 7 steps; ``changes`` replace fields. Returns the backbone."""
    backbone = small_backbone()
    content = {
        "step": 7,
        "backbone": "spherenet4",
        "backbone_state": backbone.state_dict(),
        "head_state": {},
        "optimiser_state": {},
        "rng_state": torch.zeros(1),
        "loader_state": {},
        "config": TRAINING,
        "preprocessing": SMALL.to_dict(),
    }
    save_checkpoint(path, {**content, **changes})
    return backbone


def noise(size: int, count: int = 5) -> np.ndarray:
    """Images of random pixels, uint8 (count, size, size, 3)."""
    return np.random.default_rng(1).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def write_small_folder(folder, backbone=None, *, step=7, spec=SMALL, training=TRAINING, name="spherenet4"):
    network = LoadedNetwork(
        backbone=backbone or small_backbone(),
        spec=spec,
        name=name,
        path=Path("x.pt"),
        step=step,
        digest="of the checkpoint",
        training=training,
        spec_stated=True,
    )
    return write_folder(network, folder)
