"""Loading a trained backbone from any supported format."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from model.backbones import BackboneError, build_backbone
from model.choice import Choice, ChoiceError, parse_choice
from model.errors import CheckpointError, one_line
from model.formats.checkpoint import is_ours, read_checkpoint
from model.formats.digest import backbone_digest
from model.formats.huggingface import read_folder
from model.formats.reference import from_state_dict
from pipeline.spec import Preprocessing, SpecError

MAX_SIZE_PX = 1024


class LoadedNetwork(NamedTuple):
    """A trained backbone and its provenance.

    Attributes:
        backbone: in evaluation mode, on the CPU.
        spec: how its images are prepared. A bare state dict states none: the reference's spec is assumed.
        name: the backbone as text, such as ``ir50`` or ``spherenet20:pooling=true``.
        path: the checkpoint file or folder.
        step: number of updates; None if not stated.
        digest: hash of name, spec and weights; equal for all files that hold the same network.
        training: configuration of the run; empty if not stated.
        spec_stated: False if ``spec`` is assumed.
    """

    backbone: nn.Module
    spec: Preprocessing
    name: str
    path: Path
    step: int | None
    digest: str
    training: dict[str, Any]
    spec_stated: bool

    def provenance(self) -> dict[str, str | int | None]:
        """Path, step, backbone and digest as JSON-able fields."""
        return {"path": str(self.path), "step": self.step, "backbone": self.name, "digest": self.digest}

    def metadata(self) -> dict[str, str]:
        """Metadata for exported files: backbone, step (empty if not stated), digest, and preprocessing as JSON."""
        return {
            "backbone": self.name,
            "step": "" if self.step is None else str(self.step),
            "digest": self.digest,
            "preprocessing": json.dumps(self.spec.to_dict(), sort_keys=True),
        }


def load_network(path: Path) -> LoadedNetwork:
    """Loads a checkpoint of this tool, a bare state dict of the reference, or a folder of ``export huggingface``.

    Weights are the exponential average if the checkpoint has one.

    Raises:
        CheckpointError: the file cannot be read, or its weights fit no known backbone.
        ExportError: a folder is given, and safetensors is not installed.
    """
    if path.is_dir():
        return _load_folder(path)
    content = read_checkpoint(path)
    if not is_ours(content):
        backbone, name = from_state_dict(path, content)
        return _loaded(path, backbone.eval(), name, None)
    spec = _read_spec(path, content["preprocessing"])
    try:
        choice = parse_choice(content["backbone"])
    except ChoiceError as error:
        raise CheckpointError(f"{path}: backbone: {one_line(error, 80)}") from None
    backbone = _build(path, choice, spec, content.get("averaged_state") or content["backbone_state"])
    return _loaded(path, backbone, str(choice), spec, step=content["step"], training=content["config"])


def _loaded(
    path: Path,
    backbone: nn.Module,
    name: str,
    spec: Preprocessing | None,
    *,
    step: int | None = None,
    training: dict[str, Any] | None = None,
) -> LoadedNetwork:
    return LoadedNetwork(
        backbone=backbone,
        spec=spec or Preprocessing(),
        name=name,
        path=path,
        step=step,
        digest=backbone_digest(name, backbone, spec),
        training=training or {},
        spec_stated=spec is not None,
    )


def _load_folder(path: Path) -> LoadedNetwork:
    content = read_folder(path)
    choice, spec = Choice(content.backbone, content.options), _read_spec(path, content.preprocessing)
    backbone = _build(path, choice, spec, content.state)
    network = _loaded(path, backbone, str(choice), spec, step=content.step, training=content.training)
    if network.digest != content.digest:
        raise CheckpointError(
            f"{path}: damaged or edited (the digest in its config.json does not match); export it again"
        )
    return network


def _read_spec(path: Path, record: dict[str, object]) -> Preprocessing:
    """Validates the spec of a file, which may be hostile: keys of any type, numbers beyond float range."""
    try:
        spec = Preprocessing.from_dict(record)
        if spec.size > MAX_SIZE_PX:
            raise SpecError(f"preprocessing spec: size is {spec.size} px, expected at most {MAX_SIZE_PX}")
    except SpecError as error:
        raise CheckpointError(f"{path}: {one_line(error, 200)}") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{path}: preprocessing spec: {one_line(error)}") from None
    return spec


def _build(path: Path, choice: Choice, spec: Preprocessing, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """The backbone with the weights of ``state``, in evaluation mode."""
    try:
        _check_fits(choice, spec.size, state)
        backbone = build_backbone(choice.name, image_size=spec.size, **choice.options)
        backbone.load_state_dict(state)
    except BackboneError as error:
        raise CheckpointError(f"{path}: {one_line(error, 400)}") from None
    except (RuntimeError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: its weights do not fit {choice} ({one_line(error)})") from None
    return backbone.eval()


def _check_fits(choice: Choice, size: int, state: Mapping[str, torch.Tensor]) -> None:
    """Compares names and shapes before memory is allocated: a hostile file may ask for a huge network.

    Raises:
        BackboneError: unknown backbone or invalid option.
        RuntimeError, TypeError, AttributeError: names or shapes differ.
    """
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # load_state_dict warns that meta tensors copy nothing
        build_backbone(choice.name, image_size=size, **choice.options).load_state_dict(state)
