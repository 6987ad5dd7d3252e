"""Checkpoints: ours with everything a run needs, the reference's bare state dicts, exported folders; read without running code."""

from __future__ import annotations

import contextlib
import os
import pickle
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from model.backbones import BackboneError, build_backbone
from model.backbones.spherenet import recognise, spherenet
from model.choice import Choice, ChoiceError, parse_choice
from model.errors import CheckpointError, one_line
from model.formats.digest import backbone_digest
from model.formats.folder import read_config, read_folder

FORMAT, VERSION = "lrfr-checkpoint", 1
FOLDER = "checkpoints"
_TEMPORARY_SUFFIX = ".partial"
_UNREADABLE = (
    OSError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    zipfile.BadZipFile,
    zlib.error,
)
_FIELDS: dict[str, type] = {
    "step": int,
    "backbone": str,
    "backbone_state": dict,
    "head_state": dict,
    "optimiser_state": dict,
    "loader_state": dict,
    "config": dict,
    "preprocessing": dict,
}
_REFERENCE_SIZE = 128  # px that the reference trains at
_MOST_SIZE = 1024  # px


def checkpoint_path(run: Path, step: int) -> Path:
    """``run/checkpoints/0001000.pt``: the state after ``step`` updates."""
    return run / FOLDER / f"{step:07d}.pt"


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Writes ``content`` to ``path``, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(path.parent)
    with whole_file(path) as temporary, open(temporary, "wb") as stream:  # a name would lose what the system says
        try:
            torch.save({"format": FORMAT, "version": VERSION, **content}, stream)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # a full disk
                raise error.__context__ from None
            raise


def remove_abandoned(folder: Path) -> None:
    """Deletes the unfinished files that a killed run left in ``folder``."""
    for abandoned in folder.glob(f"*{_TEMPORARY_SUFFIX}"):
        abandoned.unlink()


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path that becomes ``path`` when the block ends well, durably, and disappears when it does not."""
    temporary = path.with_name(path.name + _TEMPORARY_SUFFIX)
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Makes a file, or the renames inside a folder, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted((run / FOLDER).glob("[0-9]*.pt"))


def newest_checkpoint(runs: Path) -> Path:
    """The newest checkpoint of the runs in ``runs``. Raises: CheckpointError: there is none."""
    found = [path for run in (runs.iterdir() if runs.is_dir() else []) for path in checkpoints(run)]
    if not found:
        raise CheckpointError(
            f"{runs}: no run with a checkpoint; run: python cli.py train, or name a file with --checkpoint"
        )
    return max(found, key=lambda path: (path.stat().st_mtime_ns, path.name))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What ``torch.save`` wrote, on the CPU; no code of the file is run.

    Raises:
        CheckpointError: absent, damaged, of a newer version, or holding more than tensors and plain values.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: {'is a folder' if path.is_dir() else 'not found'}; expected a checkpoint file")
    remedy = "delete it to use the one before it" if path.absolute().parent.name == FOLDER else "name another"
    damaged = CheckpointError(f"{path}: damaged or not a checkpoint; restore it, or {remedy}")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is not None:  # PyTorch itself does not look at the checksums
                    raise damaged
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the files that are refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path}: refused: not a checkpoint, or it holds objects other than tensors and plain values"
        ) from None
    except _UNREADABLE:
        raise damaged from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, expected a checkpoint or a state dict")
    if content.get("format") == FORMAT and content.get("version") != VERSION:
        raise CheckpointError(f"{path}: checkpoint version {content.get('version')}, this tool reads {VERSION}")
    if is_ours(content):
        wrong = [name for name, kind in _FIELDS.items() if not isinstance(content.get(name), kind)]
        if wrong:
            raise CheckpointError(
                f"{path}: fields missing or of another type: {', '.join(wrong)}; it is not a whole checkpoint"
            )
    return content


def is_ours(content: dict[str, Any]) -> bool:
    """True for a checkpoint of this tool, False for a bare state dict."""
    return content.get("format") == FORMAT


def load_backbone(path: Path) -> tuple[nn.Module, dict[str, Any] | None, dict[str, Any]]:
    """The backbone in a checkpoint, in evaluation mode.

    Returns:
        the network; the preprocessing spec it was trained with, None for a bare state dict, which states none;
        facts about it: path, step (None if not stated), backbone, digest (of all that is in it, not of the file).

    Raises:
        CheckpointError: as ``read_checkpoint``, or its weights fit no backbone that we know.
    """
    if path.is_dir():
        return _from_folder(path)
    content = read_checkpoint(path)
    if not is_ours(content):
        backbone, name = _from_bare(path, content)
        return backbone.eval(), None, _facts(path, None, name, backbone, None)
    spec = content["preprocessing"]
    try:
        choice = parse_choice(content["backbone"])
    except ChoiceError as error:
        raise CheckpointError(f"{path}: its backbone is {ascii(str(error))[:80]}") from None
    backbone = _built(path, choice, spec, content.get("averaged_state") or content["backbone_state"])
    return backbone, spec, _facts(path, content["step"], str(choice), backbone, spec)


def training_of(path: Path) -> dict[str, Any]:
    """Configuration of the run that a checkpoint comes from; empty where it states none. Raises: as ``load_backbone``."""
    if path.is_dir():
        return read_config(path)["training"]
    content = read_checkpoint(path)
    return content["config"] if is_ours(content) else {}


def _from_folder(path: Path) -> tuple[nn.Module, dict[str, Any], dict[str, Any]]:
    content = read_folder(path)
    choice, spec = Choice(content.backbone, content.options), content.preprocessing
    backbone = _built(path, choice, spec, content.state)
    facts = _facts(path, content.step, str(choice), backbone, spec)
    if facts["digest"] != content.digest:
        raise CheckpointError(
            f"{path}: damaged or edited (the digest in its config.json does not match); export it again"
        )
    return backbone, spec, facts


def _built(path: Path, choice: Choice, spec: dict[str, Any], state: dict[str, Any]) -> nn.Module:
    """The chosen backbone with the weights of ``state``, in evaluation mode."""
    if not all(isinstance(value, str | int | float) for value in spec.values()):
        raise CheckpointError(f"{path}: its preprocessing holds more than plain values")
    size = spec.get("size")
    if not isinstance(size, int) or not 1 <= size <= _MOST_SIZE:
        raise CheckpointError(
            f"{path}: its preprocessing states size {ascii(size)[:80]}, expected pixels (up to {_MOST_SIZE})"
        )
    try:
        _check_fits(choice, size, state)
        backbone = build_backbone(choice.name, image_size=size, **choice.options)
        backbone.load_state_dict(state)
    except BackboneError as error:
        raise CheckpointError(f"{path}: {ascii(str(error))[1:-1][:400]}") from None
    except (RuntimeError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: its weights do not fit {choice} ({one_line(error)})") from None
    return backbone.eval()


def _check_fits(choice: Choice, size: int, state: dict[str, Any]) -> None:
    """Compares names and shapes before memory is taken for a network that a hostile file may have made huge.

    Raises:
        BackboneError: there is no such backbone.
        RuntimeError, TypeError, AttributeError: they differ.
    """
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that nothing is copied
        build_backbone(choice.name, image_size=size, **choice.options).load_state_dict(state)


def _facts(path: Path, step: int | None, name: str, backbone: nn.Module, spec: dict[str, Any] | None) -> dict[str, Any]:
    return {"path": str(path), "step": step, "backbone": name, "digest": backbone_digest(name, backbone, spec)}


def _from_bare(path: Path, state: dict[str, Any]) -> tuple[nn.Module, str]:
    """A SphereNet from a bare state dict, by the shapes of its layers in order.

    Layer indices in the keys differ with pooling, dropout and empty stages, and a ``module.`` prefix comes from
    DataParallel; the order of the layers does not change.
    """
    names = sorted(state, key=_layer_order)
    values = [state[name] for name in names]
    if not values or not all(isinstance(value, torch.Tensor) for value in values):
        raise CheckpointError(f"{path}: neither a checkpoint of this tool nor a bare state dict of tensors")
    known = recognise([tuple(value.shape) for value in values])
    if known is None:
        raise CheckpointError(f"{path}: {len(values)} tensors that fit no SphereNet (4, 10, 20, 36 or 64 layers)")
    depth, image_size, pooling = known
    if image_size != _REFERENCE_SIZE:
        raise CheckpointError(
            f"{path}: spherenet{depth} for {image_size} px images; bare state dicts are read for {_REFERENCE_SIZE} px only"
        )
    backbone = spherenet(depth, image_size=image_size, pooling=pooling)
    target = backbone.state_dict()
    if len(target) != len(values):
        raise CheckpointError(f"{path}: {len(values)} tensors, spherenet{depth} has {len(target)}")
    for name, value, (ours, expected) in zip(names, values, target.items(), strict=True):
        if value.shape != expected.shape:
            raise CheckpointError(
                f"{path}: {name} is {tuple(value.shape)}, spherenet{depth} has {tuple(expected.shape)} at {ours}"
            )
    backbone.load_state_dict(dict(zip(target, values, strict=True)))
    return backbone, f"spherenet{depth}{':pooling=true' * pooling}"


def _layer_order(name: str) -> list[tuple[int, str]]:
    order = {"weight": 0, "bias": 1}
    parts = str(name).removeprefix("module.").split(".")
    return [(int(part), "") if part.isdigit() else (order.get(part, 0), part) for part in parts]
