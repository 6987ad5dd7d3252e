"""Networks as folders in the layout of a Hugging Face model repository: names of its files, and reading them.

Nothing is fetched and no code is run: the files are JSON and safetensors, and everything in them is checked.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from model.backbones import EMBEDDING_SIZE
from model.errors import CheckpointError, need, one_line

CONFIG, SPEC, WEIGHTS, CARD = "config.json", "preprocessor_config.json", "model.safetensors", "README.md"
MODEL_TYPE, FORMAT_VERSION = "lrfr", 1  # of config.json
SPEC_KEY = "preprocessing"  # of preprocessor_config.json: what we read; its other keys are for other tools
_MOST_JSON = 1 << 20  # bytes
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "backbone": str,
    "backbone_options": dict,
    "embedding_size": int,
    "image_size": int,
    "digest": str,
    "step": (int, type(None)),
    "training": dict,
}
# what safetensors raises on damaged files besides its own error, as found by damaging them
_UNREADABLE = (OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, MemoryError)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderContent:
    """What a folder holds, checked as far as that goes without building the network.

    Attributes:
        options: of the backbone's constructor.
        step: updates behind the weights; None if not stated.
        digest: what ``backbone_digest`` must give of the network.
        training: configuration of the run; empty if not stated.
        preprocessing: the spec, flat.
        state: the tensors by name.
    """

    backbone: str
    options: dict[str, Any]
    step: int | None
    digest: str
    training: dict[str, Any]
    preprocessing: dict[str, Any]
    state: dict[str, torch.Tensor]


def read_folder(folder: Path) -> FolderContent:
    """Reads a folder that ``model.formats.huggingface.write_folder`` wrote.

    Raises:
        CheckpointError: it is another folder, a file of it is missing or damaged, or is of another version.
    """
    config = read_config(folder)
    spec = _object(folder / SPEC).get(SPEC_KEY)
    if not isinstance(spec, dict) or spec.get("size") != config["image_size"]:
        raise CheckpointError(
            f"{folder / SPEC}: {SPEC_KEY} is no spec for {config['image_size']} px, the image_size of {CONFIG}; restore both"
        )
    return FolderContent(
        backbone=config["backbone"],
        options=config["backbone_options"],
        step=config["step"],
        digest=config["digest"],
        training=config["training"],
        preprocessing=spec,
        state=_tensors(folder / WEIGHTS),
    )


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` with all its fields. Raises: CheckpointError: it is not there, or not of such a folder."""
    path = folder / CONFIG
    if not path.exists():
        raise CheckpointError(
            f"{folder}: is a folder without {CONFIG}; expected a checkpoint file, or a folder of export huggingface"
        )
    config = _object(path)
    if config.get("model_type") != MODEL_TYPE:
        raise CheckpointError(
            f"{path}: model_type is {_shown(config.get('model_type'))}, expected {MODEL_TYPE!r};"
            " name a checkpoint file, or a folder of export huggingface"
        )
    if config.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format version {_shown(config.get('format_version'))}, this tool reads {FORMAT_VERSION}"
        )
    wrong = [name for name, kind in _FIELDS.items() if not isinstance(config.get(name, ...), kind)]
    if wrong:
        raise CheckpointError(f"{path}: fields missing or of another type: {', '.join(wrong)}; restore the file")
    if config["embedding_size"] != EMBEDDING_SIZE:
        raise CheckpointError(f"{path}: embedding_size is {config['embedding_size']}, expected {EMBEDDING_SIZE}")
    return config


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in a small file."""
    if not path.is_file():
        raise CheckpointError(f"{path}: not found; export the folder again")
    if path.stat().st_size > _MOST_JSON:
        raise CheckpointError(
            f"{path}: {path.stat().st_size:,} bytes, expected a JSON object of at most {_MOST_JSON:,}"
        )
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON ({one_line(error)}); restore the file") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, expected a JSON object")
    return content


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    safetensors = need("safetensors")
    if not path.is_file():
        raise CheckpointError(f"{path}: not found; export the folder again")
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as content:
            return {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118, it is no mapping
    except (safetensors.SafetensorError, *_UNREADABLE) as error:
        raise CheckpointError(f"{path}: damaged or not safetensors ({one_line(error)}); restore the file") from None


def _shown(value: Any) -> str:
    return ascii(value)[:80]
