"""Folders in the layout of a Hugging Face model repository: file names, fields and reader.

``model.formats.export_huggingface`` writes them. The reader downloads nothing and runs no code: the files are JSON and
safetensors, and all fields are validated.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from model.backbones import EMBEDDING_SIZE
from model.errors import DAMAGE_ERRORS, MORE_MEMORY, CheckpointError, explained_memory, import_optional, one_line

CONFIG, PROCESSOR, WEIGHTS, CARD = "config.json", "preprocessor_config.json", "model.safetensors", "README.md"
MODEL_TYPE, FORMAT_VERSION = "lrfr", 1  # in config.json
SPEC_KEY = "preprocessing"  # in preprocessor_config.json; its other keys are for other tools
MAX_JSON_BYTES = 1 << 20
_FIELD_TYPES: dict[str, type | tuple[type, ...]] = {
    "backbone": str,
    "backbone_options": dict,
    "embedding_size": int,
    "image_size": int,
    "digest": str,
    "step": (int, type(None)),
    "training": dict,
}


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, torch.Tensor]]:
    """Reads a folder that ``export_huggingface.write_folder`` wrote.

    Returns:
        The fields of ``config.json``, the preprocessing spec as a mapping, and tensors by name. They are validated as far
        as is possible without building the network.

    Raises:
        CheckpointError: another kind of folder, another version, or a missing or damaged file.
        ExportError: safetensors is not installed.
    """
    config = read_config(folder)
    spec = read_json(folder / PROCESSOR).get(SPEC_KEY)
    if not isinstance(spec, dict) or spec.get("size") != config["image_size"]:
        raise CheckpointError(
            f"{folder / PROCESSOR}: {SPEC_KEY} is not a spec for {config['image_size']} px, the image_size in {CONFIG};"
            " restore both files"
        )
    return config, spec, read_safetensors(folder / WEIGHTS)


def read_config(folder: Path) -> dict[str, Any]:
    """Reads and validates ``config.json``.

    Raises:
        CheckpointError: the file is missing or damaged, or belongs to another kind of folder.
    """
    path = folder / CONFIG
    if not path.exists():
        raise CheckpointError(
            f"{folder}: is a folder without {CONFIG}; expected a checkpoint file, or a folder of export huggingface,"
            " CVLface, timm or transformers"
        )
    config = read_json(path)
    if config.get("model_type") != MODEL_TYPE:
        raise CheckpointError(
            f"{path}: model_type is {_quoted(config.get('model_type'))}, expected {MODEL_TYPE!r};"
            " name a checkpoint file, or a folder of export huggingface"
        )
    if config.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format version {_quoted(config.get('format_version'))}, this tool reads {FORMAT_VERSION}"
        )
    wrong = [name for name, kind in _FIELD_TYPES.items() if not isinstance(config.get(name, ...), kind)]
    if wrong:
        raise CheckpointError(f"{path}: fields missing or of the wrong type: {', '.join(wrong)}; restore the file")
    if config["embedding_size"] != EMBEDDING_SIZE:
        raise CheckpointError(f"{path}: embedding_size is {config['embedding_size']}, expected {EMBEDDING_SIZE}")
    return config


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object. Raises: CheckpointError: the file is missing, too large, or holds something else."""
    if not path.is_file():
        raise CheckpointError(f"{path}: not found; export the folder again")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise CheckpointError(
            f"{path}: {path.stat().st_size:,} bytes, expected a JSON object of at most {MAX_JSON_BYTES:,}"
        )
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON ({one_line(error)}); restore the file") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, expected a JSON object")
    return content


def has_safetensors_header(path: Path) -> bool:
    """Whether a file begins as safetensors does, whatever its name: the length of its header, and JSON."""
    with open(path, "rb") as stream:
        start = stream.read(9)
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size - 8


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Reads all tensors of a file.

    Raises:
        CheckpointError: the file is missing or damaged.
        ExportError: safetensors is not installed.
    """
    safetensors = import_optional("safetensors")
    if not path.is_file():
        raise CheckpointError(f"{path}: not found; export the folder again")
    try:
        memory = explained_memory(MORE_MEMORY)  # the library checks the stated sizes before
        with memory, safetensors.safe_open(path, framework="pt", device="cpu") as content:
            return {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118, it is not a mapping
    except (safetensors.SafetensorError, ArithmeticError, *DAMAGE_ERRORS) as error:
        raise CheckpointError(f"{path}: damaged or not safetensors ({one_line(error)}); restore the file") from None


def _quoted(value: object) -> str:
    try:
        return ascii(value)[:80]
    except RecursionError:  # JSON may be nested just less deeply than its reader refuses
        return f"a deeply nested {type(value).__name__}"
