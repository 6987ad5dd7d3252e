"""Writes a network as a folder in the layout of a Hugging Face model repository; ``model.formats.folder`` reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from model.backbones import EMBEDDING_SIZE
from model.choice import parse_choice
from model.errors import CheckpointError, ExportError, need
from model.formats.card import model_card
from model.formats.digest import backbone_digest
from model.formats.folder import CARD, CONFIG, FORMAT_VERSION, MODEL_TYPE, SPEC, SPEC_KEY, WEIGHTS, read_config
from model.formats.network import LoadedNetwork, load_network
from pipeline.spec import Preprocessing
from shards.files import whole_file, whole_folder

_BICUBIC = 3  # Pillow's number


def write_folder(network: LoadedNetwork, folder: Path) -> str:
    """Writes ``backbone`` with its preprocessing and a model card, whole or not at all, and reads it back.

    Args:
        folder: to make; an earlier export there is replaced, anything else is not.

    Returns:
        the digest of the network with its spec, which is the checkpoint's own where that states a spec.

    Raises:
        ExportError: a package is missing, or the folder holds something else.
        CheckpointError: the network or its configuration cannot be put into such files.
    """
    folder = folder.resolve()
    _check_free(folder)
    config = _config(network)
    state = {key: value.contiguous() for key, value in network.backbone.state_dict().items()}
    texts = {
        CONFIG: _json(config, network.path),
        SPEC: _json(_processor(network.spec), network.path),
        CARD: model_card(config, network.spec, sum(value.numel() for value in network.backbone.parameters())),
    }
    weights = need("safetensors.torch").save(state, metadata={"format": "pt"})
    with whole_folder(folder) as temporary:
        for file, data in {WEIGHTS: weights, **{file: text.encode() for file, text in texts.items()}}.items():
            with whole_file(temporary / file) as path:
                path.write_bytes(data)
        load_network(temporary)  # compares the digest
    return config["digest"]


def _config(network: LoadedNetwork) -> dict[str, Any]:
    """The content of ``config.json``."""
    choice = parse_choice(network.name)
    return {
        "model_type": MODEL_TYPE,
        "format_version": FORMAT_VERSION,
        "backbone": choice.name,
        "backbone_options": choice.options,
        "embedding_size": EMBEDDING_SIZE,
        "image_size": network.spec.size,
        "step": network.step,
        "digest": backbone_digest(str(choice), network.backbone, network.spec),
        "training": network.training,
    }


def _processor(spec: Preprocessing) -> dict[str, Any]:
    """The spec, and the part of it that image processors of other tools know by these names."""
    return {
        SPEC_KEY: spec.to_dict(),
        "do_resize": True,
        "size": {"height": spec.size, "width": spec.size},
        "resample": _BICUBIC,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [spec.mean] * 3,
        "image_std": [spec.std] * 3,
    }


def _json(value: Any, path: Path) -> str:
    try:
        return json.dumps(value, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError, RecursionError):
        raise CheckpointError(f"{path}: its configuration holds more than plain values; it cannot be JSON") from None


def _check_free(folder: Path) -> None:
    """Raises: ExportError: the folder holds more than an earlier export."""
    if not folder.exists():
        return
    others = sorted({entry.name for entry in folder.iterdir()} - {CONFIG, SPEC, WEIGHTS, CARD})
    if not others and any(folder.iterdir()):
        try:
            read_config(folder)
        except CheckpointError:
            others = [CONFIG]
    if others:
        raise ExportError(
            f"{folder}: exists and holds something else ({ascii(others[0])[:80]}); choose another --out, or delete it"
        )
