"""Checkpoint files: the state of a training run, written atomically and read without running code."""

from __future__ import annotations

import pickle
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from model.errors import DAMAGE_ERRORS, CheckpointError
from shards.files import remove_temporaries, whole_file
from shards.messages import command

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


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted((run / FOLDER).glob("[0-9]*.pt"))


def newest_checkpoint(runs: Path) -> Path:
    """The newest checkpoint of all runs in the folder ``runs``.

    Raises:
        CheckpointError: no run has a checkpoint.
    """
    found = [path for run in (runs.iterdir() if runs.is_dir() else []) for path in checkpoints(run)]
    if not found:
        raise CheckpointError(
            f"{runs}: no run with a checkpoint; run: {command('train')}, or name a file with --checkpoint"
        )
    return max(found, key=lambda path: (path.stat().st_mtime_ns, path.name))


def read_checkpoint(path: Path) -> Content:
    """Reads a file that ``torch.save`` wrote, onto the CPU, without running code in it.

    Raises:
        CheckpointError: the file is missing, damaged or of another version, or contains objects other than tensors
            and plain values.
        PermissionError: the file cannot be read.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: {'is a folder' if path.is_dir() else 'not found'}; expected a checkpoint file")
    content = _load(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, expected a checkpoint or a state dict")
    if is_ours(content):
        if content.get("version") != VERSION:
            raise CheckpointError(f"{path}: checkpoint version {content.get('version')}, this tool reads {VERSION}")
        wrong = [name for name, kind in _FIELD_TYPES.items() if not isinstance(content.get(name), kind)]
        if wrong:
            raise CheckpointError(f"{path}: incomplete checkpoint: missing or of the wrong type: {', '.join(wrong)}")
    return content


def _load(path: Path) -> object:
    remedy = "delete it to use the previous one" if path.absolute().parent.name == FOLDER else "name another"
    damaged = CheckpointError(f"{path}: damaged or not a checkpoint; restore it, or {remedy}")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is not None:  # torch.load does not verify the checksums
                    raise damaged
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.load warns about files that are rejected below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path}: refused: not a checkpoint, or it holds objects other than tensors and plain values"
        ) from None
    except PermissionError:  # the file may be intact
        raise
    except (*DAMAGE_ERRORS, EOFError, AssertionError, zipfile.BadZipFile, zlib.error):
        raise damaged from None


def is_ours(content: Content) -> bool:
    """Whether ``content`` is a checkpoint of this tool rather than a bare state dict."""
    return content.get("format") == FORMAT
