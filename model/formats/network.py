"""LoadedNetwork: a trained backbone read from a file, with what the file states about it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from model.backbones import BackboneError, build_backbone
from model.choice import Choice, ChoiceError, parse_choice
from model.errors import CheckpointError, one_line
from model.formats.checkpoint import checkpoints, is_ours, read_checkpoint
from model.formats.digest import backbone_digest
from model.formats.folder import read_folder
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
        digest: hash of name, spec and weights. Every file that holds the same network has the same digest.
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

    def provenance(self) -> dict[str, Any]:
        """Path, step, backbone and digest as JSON-able fields."""
        return {"path": str(self.path), "step": self.step, "backbone": self.name, "digest": self.digest}


def load_network(path: Path) -> LoadedNetwork:
    """Loads our checkpoint, a bare state dict of the reference, or a folder written by ``export huggingface``.

    Raises:
        CheckpointError: as ``read_checkpoint``, or the weights fit no known backbone.
    """
    if path.is_dir():
        return _from_folder(path)
    content = read_checkpoint(path)
    if not is_ours(content):
        backbone, name = from_state_dict(path, content)
        return _loaded(path, backbone.eval(), name, None)
    spec = _spec(path, content["preprocessing"])
    try:
        choice = parse_choice(content["backbone"])
    except ChoiceError as error:
        raise CheckpointError(f"{path}: its backbone is {ascii(str(error))[:80]}") from None
    backbone = _built(path, choice, spec, content.get("averaged_state") or content["backbone_state"])
    return _loaded(path, backbone, str(choice), spec, step=content["step"], training=content["config"])


def newest_checkpoint(runs: Path) -> Path:
    """The newest checkpoint of all runs in the folder ``runs``. Raises: CheckpointError: there is none."""
    found = [path for run in (runs.iterdir() if runs.is_dir() else []) for path in checkpoints(run)]
    if not found:
        raise CheckpointError(
            f"{runs}: no run with a checkpoint; run: python cli.py train, or name a file with --checkpoint"
        )
    return max(found, key=lambda path: (path.stat().st_mtime_ns, path.name))


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


def _from_folder(path: Path) -> LoadedNetwork:
    content = read_folder(path)
    choice, spec = Choice(content.backbone, content.options), _spec(path, content.preprocessing)
    backbone = _built(path, choice, spec, content.state)
    network = _loaded(path, backbone, str(choice), spec, step=content.step, training=content.training)
    if network.digest != content.digest:
        raise CheckpointError(
            f"{path}: damaged or edited (the digest in its config.json does not match); export it again"
        )
    return network


def _spec(path: Path, stated: dict[str, Any]) -> Preprocessing:
    """The spec in a file's mapping, which may be hostile: keys of any type, numbers beyond a float."""
    try:
        spec = Preprocessing.from_dict(stated)
        if spec.size > MAX_SIZE_PX:
            raise SpecError(f"preprocessing spec: size is {spec.size} px, expected at most {MAX_SIZE_PX}")
    except SpecError as error:
        raise CheckpointError(f"{path}: {one_line(error, 200)}") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{path}: preprocessing spec: {one_line(error)}") from None
    return spec


def _built(path: Path, choice: Choice, spec: Preprocessing, state: dict[str, Any]) -> nn.Module:
    """The backbone with the weights of ``state``, in evaluation mode."""
    try:
        _check_fits(choice, spec.size, state)
        backbone = build_backbone(choice.name, image_size=spec.size, **choice.options)
        backbone.load_state_dict(state)
    except BackboneError as error:
        raise CheckpointError(f"{path}: {ascii(str(error))[1:-1][:400]}") from None
    except (RuntimeError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: its weights do not fit {choice} ({one_line(error)})") from None
    return backbone.eval()


def _check_fits(choice: Choice, size: int, state: dict[str, Any]) -> None:
    """Compares names and shapes before memory is allocated: a hostile file may ask for a huge network.

    Raises:
        BackboneError: unknown backbone or option.
        RuntimeError, TypeError, AttributeError: names or shapes differ.
    """
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # load_state_dict warns that meta tensors copy nothing
        build_backbone(choice.name, image_size=size, **choice.options).load_state_dict(state)
