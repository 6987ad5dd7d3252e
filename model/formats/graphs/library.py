"""Folders of timm and of transformers: a configuration, and weights beside it. Nothing is downloaded."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from model.errors import DAMAGE_ERRORS, CheckpointError, ExportError, import_optional, one_line
from model.formats.checkpoint import read_checkpoint
from model.formats.foreign.cvlface import cvlface_weights
from model.formats.graphs.found import ASSUMED, FoundGraph, choose_spec
from model.formats.graphs.modules import TorchGraph
from model.formats.huggingface import CONFIG, MODEL_TYPE, PROCESSOR, WEIGHTS, read_json, read_safetensors
from model.graph import file_hash
from pipeline.named_specs import NAMED_SPECS
from pipeline.spec import MAX_SIZE_PX, Preprocessing, SpecError
from shards.messages import printable
from shards.process_setting import ProcessSetting, ignored_warnings

PICKLED = "pytorch_model.bin"  # of timm
MAX_NUMBER = 1 << 20  # in a configuration
MAX_LAYERS = 1000
MAX_BYTES_PER_STORED = 4  # a network may take as many bytes of memory for each that its file has
_NAME = re.compile(r"[\w-]{1,80}", re.ASCII)
_REFUSED = ("auto_map", "quantization_config", "attn_implementation", "_attn_implementation")


def is_library(path: Path) -> bool:
    """Whether a folder has the configuration of a network of timm or transformers."""
    if not path.is_dir() or not (path / CONFIG).is_file() or cvlface_weights(path):
        return False
    try:
        config = read_json(path / CONFIG)
    except (CheckpointError, OSError):
        return False
    kind = config.get("model_type")
    if "format_version" in config:  # a damaged folder of ours
        return False
    return "architecture" in config or (
        isinstance(kind, str) and kind != MODEL_TYPE and _NAME.fullmatch(kind) is not None
    )


def read_library(path: Path, given: Preprocessing | None) -> FoundGraph:
    """Builds the network of a folder by the library that it is of, and loads its weights.

    Raises:
        CheckpointError: the library does not know it, weights are missing or do not fit, or a number is too large.
        ExportError: the library is not installed, or does not work.
    """
    config = read_json(path / CONFIG)
    _check_numbers(path, config)
    read, library = (_read_timm, "timm") if "architecture" in config else (_read_transformers, "transformers")
    module, spec, weights = read(path, config)
    graph = TorchGraph(path, module.eval(), file_hash(weights))
    if given is not None:
        spec = choose_spec(path, spec.size, given, expected=f"images of {spec.size} px")
    graph.find_output(spec.size)
    return FoundGraph(module=graph, name=library, spec=spec, stated=False)


def _read_timm(path: Path, config: dict[str, Any]) -> tuple[torch.nn.Module, Preprocessing, Path]:
    """The network with its head, as ``num_classes`` says: its output is the embedding."""
    name, options = config["architecture"], config.get("model_args") or {}
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise CheckpointError(f"{path / CONFIG}: architecture is not the name of a network of timm")
    if not isinstance(options, dict) or any(key.startswith(("pretrained", "checkpoint", "cache")) for key in options):
        raise CheckpointError(f"{path / CONFIG}: model_args are not options of the network alone")
    timm = _import("timm")
    stated = {**config, **(config.get("pretrained_cfg") or {})}
    sides = stated.get("input_size", [3, 224, 224])
    spec = _spec(
        path, sides[-1] if isinstance(sides, list) and sides else None, stated.get("mean"), stated.get("std"), 1.0
    )
    weights = path / (WEIGHTS if (path / WEIGHTS).is_file() else PICKLED)
    state = read_safetensors(weights) if weights.name == WEIGHTS else read_checkpoint(weights)

    def build() -> torch.nn.Module:
        module: torch.nn.Module = timm.create_model(
            name, pretrained=False, num_classes=config.get("num_classes", 0), **options
        )
        module.load_state_dict(state)
        return module

    with _checked(path, f"timm's {name}"):
        with torch.device("meta"):  # compares names and shapes before memory is taken
            build()
        return build(), spec, weights


def _read_transformers(path: Path, config: dict[str, Any]) -> tuple[torch.nn.Module, Preprocessing, Path]:
    """The network without its head: its pooled output is the embedding."""
    if refused := [key for key in _REFUSED if config.get(key)]:
        raise CheckpointError(f"{path / CONFIG}: refused: {refused[0]}, which names code that is not in transformers")
    weights = path / WEIGHTS
    if not weights.is_file():
        raise CheckpointError(
            f"{path}: no {WEIGHTS}; save it by save_pretrained(..., safe_serialization=True) in one file"
        )
    transformers = _import("transformers")
    spec = _processor_spec(path, config)
    with quiet_transformers, _checked(path, f"transformers' {config['model_type']}"):
        parsed = transformers.AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            empty = transformers.AutoModel.from_config(parsed, trust_remote_code=False)
        size = sum(weight.nbytes for weight in empty.parameters())
        if size > MAX_BYTES_PER_STORED * weights.stat().st_size:
            raise CheckpointError(f"{path}: its weights do not fit {CONFIG}: {size:,} bytes in memory")
        module, info = transformers.AutoModel.from_pretrained(
            path,
            config=parsed,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    missing = [name for name in info["missing_keys"] if not name.startswith("pooler.")]
    if missing or info["mismatched_keys"]:
        raise CheckpointError(f"{path}: its weights do not fit {CONFIG}: {one_line(KeyError(*missing[:1]))} is missing")
    return module, spec, weights


def _log_of_transformers() -> Any:
    return importlib.import_module("transformers").utils.logging


def _silence() -> None:
    log = _log_of_transformers()
    log.set_verbosity_error()
    log.disable_progress_bar()


def _log_settings() -> tuple[int, bool]:
    log = _log_of_transformers()
    return log.get_verbosity(), log.is_progress_bar_enabled()


def _restore_log(before: tuple[int, bool]) -> None:
    log, (verbosity, has_bars) = _log_of_transformers(), before
    log.set_verbosity(verbosity)
    if has_bars:
        log.enable_progress_bar()


quiet_transformers = ProcessSetting(_log_settings, _silence, _restore_log)
"""Without the messages and progress bars of transformers, which must be installed."""


def _processor_spec(path: Path, config: dict[str, Any]) -> Preprocessing:
    """The preprocessing that ``preprocessor_config.json`` states; without the file, the range -1 to 1."""
    stated = (
        read_json(path / PROCESSOR)
        if (path / PROCESSOR).is_file()
        else {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    )
    sides = stated.get("crop_size") or stated.get("size") or config.get("image_size")
    size = next(iter(sides.values()), None) if isinstance(sides, dict) else sides
    mean, std = (stated.get("image_mean"), stated.get("image_std")) if stated.get("do_normalize", True) else (0.0, 1.0)
    factor = stated.get("rescale_factor", 1 / 255) if stated.get("do_rescale", True) else 1.0
    if not isinstance(factor, int | float) or not 1e-6 < factor < 1e6:
        raise CheckpointError(f"{path / PROCESSOR}: rescale_factor is not a number that fits, such as 1/255")
    return _spec(path, size, mean, std, 255 * factor)


def _spec(path: Path, size: object, mean: Any, std: Any, scale: float) -> Preprocessing:
    """The usual template at ``size`` px; mean and std are of pixels in 0 to ``scale``. Raises: CheckpointError."""
    if type(size) is not int or not 1 <= size <= MAX_SIZE_PX:
        raise CheckpointError(f"{path}: states no size of images from 1 to {MAX_SIZE_PX} px")
    try:
        fields: dict[str, Any] = {
            name: [one / scale for one in value] if isinstance(value, list) else value / scale
            for name, value in (("mean", mean), ("std", std))
            if value is not None
        }
        return dataclasses.replace(NAMED_SPECS[ASSUMED].resized(size), **fields)
    except (SpecError, TypeError) as error:
        raise CheckpointError(f"{path}: states no mean and deviation of pixels ({one_line(error)})") from None


def _check_numbers(path: Path, config: dict[str, Any]) -> None:
    """Raises: CheckpointError: a number would make a network that is too large."""
    left: list[tuple[str, object]] = list(config.items())
    while left:
        name, value = left.pop()
        most = MAX_LAYERS if re.search("layer|depth|block|stage", name) else MAX_NUMBER
        if isinstance(value, dict):
            left += value.items()
        elif isinstance(value, list):
            left += [(name, one) for one in value]
        elif isinstance(value, int | float) and not abs(value) <= most:
            raise CheckpointError(f"{path / CONFIG}: {printable(name[:40])} is more than {most:,}")


def _import(library: str) -> Any:
    """Raises: ExportError: it is not installed, or does not work with this PyTorch."""
    try:
        return import_optional(library, library)
    except (ImportError, RuntimeError, AttributeError) as error:  # as torchvision raises beside another PyTorch
        raise ExportError(
            f"{library} cannot be imported ({one_line(error)}); install the torchvision that belongs to torch"
            f" {torch.__version__}"
        ) from None


@contextlib.contextmanager
def _checked(path: Path, network: str) -> Iterator[None]:
    """Turns what a library raises into one line."""
    try:
        with ignored_warnings():  # load_state_dict warns that meta tensors copy nothing
            yield
    except (ImportError, AssertionError, NotImplementedError, json.JSONDecodeError, *DAMAGE_ERRORS) as error:
        raise CheckpointError(f"{path}: is not {network}, or damaged ({one_line(error)})") from None
