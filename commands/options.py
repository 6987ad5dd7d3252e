"""Options that several commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from commands.group import CommandError


def data(*parts: str) -> Any:
    """A default path under ``$LRFR_DATA`` (default ``data``), read when the command runs."""
    return lambda: Path(os.environ.get("LRFR_DATA", "data"), *parts)


def folder(name: str, *parts: str, help: str) -> Any:
    """An option that takes a folder, by default one under ``$LRFR_DATA``."""
    return click.option(
        name,
        type=click.Path(path_type=Path),
        default=data(*parts),
        show_default="/".join(("$LRFR_DATA", *parts)),
        help=help,
    )


def allow_missing_option(help: str) -> Any:
    """``--allow-missing`` of scoring and of evaluation."""
    return click.option("--allow-missing", is_flag=True, help=help)


def pick_device(device: str | None) -> str:
    """The asked-for device, by default ``cuda`` where there is one."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise CommandError(
            "--device cuda: this PyTorch sees no GPU; use --device cpu, or install a CUDA build of PyTorch"
        )
    return device or ("cuda" if torch.cuda.is_available() else "cpu")
