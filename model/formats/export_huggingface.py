"""Writer of folders in the layout of a Hugging Face model repository; ``model.formats.huggingface`` reads them."""

from __future__ import annotations

import json
import os
from importlib import resources
from pathlib import Path

import jinja2

from model.backbones import EMBEDDING_SIZE
from model.errors import CheckpointError, ExportError, import_optional
from model.formats import huggingface as layout
from model.formats.network import LoadedNetwork, backbone_digest, load_network
from model.options import parse_choice
from pipeline.spec import Preprocessing, channels
from shards.files import StrPath, whole_folder, write_bytes
from shards.system_names import SYSTEM_NAMES

_PILLOW_BICUBIC = 3  # value of PIL.Image.Resampling.BICUBIC


def write_folder(network: LoadedNetwork, folder: StrPath) -> str:
    """Writes weights, configuration, preprocessing and model card atomically, and reads them back.

    Args:
        folder: to create. An earlier export is replaced; a folder with other files is refused.

    Returns:
        The digest of the network with its spec. It is ``network.digest`` if the checkpoint states a spec.

    Raises:
        ExportError: a package is missing, or the folder holds other files.
        CheckpointError: the configuration of the run cannot be written as JSON.
    """
    network.check_trainable("exported")
    folder = Path(os.path.realpath(folder))
    _check_replaceable(folder)
    digest = backbone_digest(network.name, network.backbone, network.spec)
    state = {key: value.contiguous() for key, value in network.backbone.state_dict().items()}
    files = {
        layout.WEIGHTS: import_optional("safetensors.torch").save(state, metadata={"format": "pt"}),
        layout.CONFIG: _json(_config(network, digest), network.path),
        layout.PROCESSOR: _json(_processor(network.spec), network.path),
        layout.CARD: _card(network, digest).encode(),
    }
    with whole_folder(folder) as temporary:
        for name, data in files.items():
            write_bytes(temporary / name, data)
        load_network(temporary)  # compares the digest
    return digest


def _config(network: LoadedNetwork, digest: str) -> dict[str, object]:
    """The content of ``config.json``."""
    choice = parse_choice(network.name)
    return {
        "model_type": layout.MODEL_TYPE,
        "format_version": layout.FORMAT_VERSION,
        "backbone": choice.name,
        "backbone_options": choice.options,
        "embedding_size": EMBEDDING_SIZE,
        "image_size": network.spec.size,
        "step": network.step,
        "digest": digest,
        "training": network.training,
    }


def _processor(spec: Preprocessing) -> dict[str, object]:
    """The content of ``preprocessor_config.json``: the spec, and the keys that image processors of other tools read."""
    return {
        layout.SPEC_KEY: spec.to_dict(),
        "do_resize": True,
        "size": {"height": spec.size, "width": spec.size},
        "resample": _PILLOW_BICUBIC,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(channels(spec.mean)),
        "image_std": list(channels(spec.std)),
    }


def _card(network: LoadedNetwork, digest: str) -> str:
    """The model card, README.md."""
    template = resources.files("model.formats").joinpath("model_card.md.j2").read_text()
    environment = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(template).render(
        backbone=parse_choice(network.name).name,
        parameters=sum(value.numel() for value in network.backbone.parameters()),
        dimensions=EMBEDDING_SIZE,
        spec=network.spec,
        step=network.step,
        digest=digest,
        training=json.dumps(network.training, indent=1) if network.training else None,
    )


def _json(value: object, path: Path) -> bytes:
    try:
        return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError, RecursionError):
        raise CheckpointError(
            f"{path}: its configuration holds values other than finite numbers, text, lists and mappings;"
            " it cannot be written as JSON"
        ) from None


def _check_replaceable(folder: Path) -> None:
    """Raises: ExportError: the folder holds anything but an earlier export."""
    if not folder.exists():
        return
    # the folder is replaced: of hidden names only those that the system recreates, not .git
    found = {entry.name for entry in folder.iterdir() if entry.name.lower() not in (*SYSTEM_NAMES, ".ds_store")}
    others = sorted(found - {layout.CONFIG, layout.PROCESSOR, layout.WEIGHTS, layout.CARD})
    if found and not others:
        try:
            layout.read_config(folder)
        except CheckpointError:
            others = [layout.CONFIG]
    if others:
        raise ExportError(
            f"{folder}: exists and holds something else ({ascii(others[0])[:80]}); choose another --out, or delete it"
        )
