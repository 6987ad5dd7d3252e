"""Checkpoint files: the state of a training run, written atomically and read without running code."""

from __future__ import annotations

import contextlib
import pickle
import re
import threading
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from model.errors import DAMAGE_ERRORS, MORE_MEMORY, CheckpointError, explained_memory
from model.formats.objects import named_objects, skipping
from shards.arguments import check_path
from shards.files import StrPath, remove_temporaries, whole_file
from shards.messages import command
from shards.process_setting import ignored_warnings

Content = dict[str, Any]
"""Raw content of a file: a checkpoint of this tool or a bare state dict."""

FORMAT, VERSION = "lrfr-checkpoint", 1
FOLDER = "checkpoints"
_FIELD_TYPES: dict[str, type] = {
    "step": int,
    "backbone": str,
    "backbone_state": dict,
    "head_state": dict,
    "optimiser_state": dict,
    "loader_state": dict,
    "config": dict,
    "preprocessing": dict,
}
_OPTIONAL_TYPES: dict[str, type] = {
    "averaged_state": dict,
    "center_state": dict,
    "trained_on": dict,
    "guard_state": dict,
    "teacher": dict,
}
_PLAIN_FIELDS = (
    "step",
    "config",
    "preprocessing",
    "trained_on",
    "guard_state",
    "loader_state",
    "teacher",
)  # without tensors
MAX_STEP = 10**12
_LOADING = threading.Lock()  # what PyTorch may read is a setting of the process


def checkpoint_path(run: Path, step: int) -> Path:
    """Path of the checkpoint after ``step`` updates: ``run/checkpoints/0001000.pt``."""
    return run / FOLDER / f"{step:07d}.pt"


def save_checkpoint(path: Path, content: Content) -> None:
    """Writes a checkpoint atomically; removes temporary files of interrupted runs first.

    Args:
        content: the fields of ``_FIELD_TYPES`` and any others that ``torch.load(weights_only=True)`` can read.

    Raises:
        OSError: the disk is full, or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_temporaries(path.parent)
    with whole_file(path) as temporary, open(temporary, "wb") as stream:
        try:
            torch.save({"format": FORMAT, "version": VERSION, **content}, stream)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # a full disk; a path instead of a stream would hide it
                raise error.__context__ from None
            raise


def checkpoints(run: StrPath) -> list[Path]:
    """The checkpoints of a run, oldest first. Raises: TypeError: ``run`` is not a path."""
    folder = check_path("run", run) / FOLDER
    found = [path for path in folder.glob("[0-9]*.pt") if re.fullmatch("[0-9]+", path.stem)]
    return sorted(found, key=lambda path: int(path.stem))  # from 10 million steps on, names have more digits


def newest_checkpoint(runs: Path) -> Path:
    """The newest checkpoint of all runs in the folder ``runs``.

    Raises:
        CheckpointError: no run has a checkpoint.
    """
    found = [path for run in (runs.iterdir() if runs.is_dir() else []) for path in checkpoints(run)]
    if not found:
        raise CheckpointError(
            f"{runs}: no run with a checkpoint; run: {command('train')}, or name a file with --network"
        )
    return max(found, key=lambda path: (path.stat().st_mtime_ns, path.name))


def read_checkpoint(path: Path, *, skip_objects: bool = False) -> Content:
    """Reads a file that ``torch.save`` wrote, onto the CPU, without running code in it.

    Args:
        skip_objects: reads a file of another program that contains other objects, too. Each is replaced by an empty
            dict whose attributes are the object's fields; a pickled module keeps its tensors that way.

    Raises:
        CheckpointError: the file is missing, damaged or of another version, or contains objects other than tensors
            and plain values.
        OutOfMemoryError: memory does not suffice for the file.
        PermissionError: the file cannot be read.
    """
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "not a regular file" if path.exists() else "not found"
        raise CheckpointError(f"{path}: {found}; expected a checkpoint file")
    content = _load(path, skip_objects)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, expected a checkpoint or a state dict")
    if is_ours(content):
        _check_fields(path, content)
    return content


def _check_fields(path: Path, content: Content) -> None:
    """Raises: CheckpointError: another version, or a field is missing or of the wrong type."""
    version = content.get("version")
    if type(version) is not int or version != VERSION:
        found = version if isinstance(version, int | str | None) else f"of type {type(version).__name__}"
        raise CheckpointError(f"{path}: checkpoint version {found}, this tool reads {VERSION}")
    types = {**_FIELD_TYPES, **{name: kind for name, kind in _OPTIONAL_TYPES.items() if name in content}}
    wrong = [name for name, kind in types.items() if not isinstance(content.get(name), kind)]
    if wrong:
        raise CheckpointError(f"{path}: incomplete checkpoint: missing or of the wrong type: {', '.join(wrong)}")
    for name in _PLAIN_FIELDS:
        if any(isinstance(value, torch.Tensor) for value in _values(content.get(name))):
            raise CheckpointError(f"{path}: {name} contains a tensor, expected plain values; name another checkpoint")
    if not 0 <= content["step"] <= MAX_STEP or isinstance(content["step"], bool):
        raise CheckpointError(f"{path}: step is {content['step']}, expected 0 to {MAX_STEP}; name another checkpoint")


def _values(content: object) -> Iterator[object]:
    """Everything in nested dictionaries, lists and tuples, once."""
    left, seen = [content], set()
    while left:
        value = left.pop()
        yield value
        if isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            left.extend(dict.values(value) if isinstance(value, dict) else value)
            left.extend(getattr(value, "__dict__", {}).values())  # of an ``OrderedDict``, or a skipped object


def _load(path: Path, skip_objects: bool) -> object:
    remedy = "delete it to use the previous one" if path.absolute().parent.name == FOLDER else "name another"
    damaged = CheckpointError(f"{path}: damaged or not a checkpoint; restore it, or {remedy}")
    try:
        if is_zip := zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                # torch.save does not compress: only a hostile file unpacks to more than it has
                if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
                    raise CheckpointError(f"{path}: refused: it unpacks to more than its size; save it with torch.save")
                if archive.testzip() is not None:  # torch.load does not verify the checksums
                    raise damaged
        with ignored_warnings(), _LOADING:  # torch.load warns about files that are rejected below
            names = named_objects(path)
            memory = explained_memory(MORE_MEMORY) if is_zip else contextlib.nullcontext()  # others may state any size
            with memory, skipping(names) if skip_objects else contextlib.nullcontext():
                content = torch.load(path, map_location="cpu", weights_only=True)
        for value in _values(content):
            if isinstance(value, OrderedDict):
                vars(value).clear()  # a field of the file's may hide a method
            if isinstance(value, torch.Tensor) and _exceeds_storage(value):
                raise CheckpointError(f"{path}: refused: a tensor of {value.numel():,} values has fewer in the file")
        return content
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path}: refused: not a checkpoint, or it holds objects other than tensors and plain values;"
            " save tensors alone: torch.save(network.state_dict(), ...)"
        ) from None
    except PermissionError:  # the file may be intact
        raise
    except (*DAMAGE_ERRORS, ArithmeticError, MemoryError, EOFError, AssertionError, zipfile.BadZipFile, zlib.error):
        raise damaged from None


def _exceeds_storage(tensor: torch.Tensor) -> bool:
    """Whether a tensor repeats its values, or has none: using it could take any amount of memory."""
    if tensor.layout is not torch.strided:  # fits no network
        return False
    return tensor.device.type != "cpu" or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()


def is_ours(content: Content) -> bool:
    """Whether ``content`` is a checkpoint of this tool rather than a bare state dict."""
    stated = dict.get(content, "format")
    return isinstance(stated, str) and stated == FORMAT
