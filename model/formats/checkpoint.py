"""Checkpoints: ours with everything a run needs, the reference's bare state dicts, exported folders; read without running code."""

from __future__ import annotations

import pickle
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from model.errors import CheckpointError
from shards.files import remove_temporaries, whole_file

FORMAT, VERSION = "lrfr-checkpoint", 1
FOLDER = "checkpoints"
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


def checkpoint_path(run: Path, step: int) -> Path:
    """``run/checkpoints/0001000.pt``: the state after ``step`` updates."""
    return run / FOLDER / f"{step:07d}.pt"


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Writes ``content`` to ``path``, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_temporaries(path.parent, ["*"])
    with whole_file(path) as temporary, open(temporary, "wb") as stream:  # a name would lose what the system says
        try:
            torch.save({"format": FORMAT, "version": VERSION, **content}, stream)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # a full disk
                raise error.__context__ from None
            raise


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted((run / FOLDER).glob("[0-9]*.pt"))


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
