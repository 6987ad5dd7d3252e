"""The network that bench speed eval scores with: untrained, for its speed does not depend on its weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BACKBONE, _QUICK_BACKBONE = "spherenet20", "spherenet4"


def time_eval(*, root: Path | None, folder: Path, rounds: int, quick: bool, backbone: str | None) -> Iterator[Any]:
    """The stage: LFW by the plain baseline and by the engine, in float32 and in bfloat16, on the CPU.

    Raises:
        ProtocolError: LFW under ``root`` is not as it should be.
    """
    import torch

    from benchmarks.speed.scoring import time_scoring
    from model.backbones import build_backbone
    from model.embedder import Embedder

    torch.manual_seed(0)
    name = backbone or (_QUICK_BACKBONE if quick else _BACKBONE)
    network = build_backbone(name).eval()
    ours = copy.deepcopy(network)  # an embedder changes how weights lie in memory
    yield from time_scoring(
        root=root,
        folder=folder,
        rounds=rounds,
        quick=quick,
        name=name,
        network=network,
        embedders={"fp32": Embedder(ours), "bf16": Embedder(ours, precision="bf16")},
    )
