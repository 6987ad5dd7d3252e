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
        type=click.Path(path_type=Path, file_okay=False),
        default=data(*parts),
        show_default="/".join(("$LRFR_DATA", *parts)),
        help=help,
    )


def checkpoint_option(command: Any) -> Any:
    """``--checkpoint`` of everything that uses a trained network."""
    return click.option(
        "--checkpoint",
        type=click.Path(path_type=Path),
        help="Ours, a bare .pth state dict, or a folder of export huggingface. [default: the newest checkpoint under $LRFR_DATA/runs]",
    )(command)


def engine_options(command: Any) -> Any:
    """Which network embeds, and how: what ``commands.network.open_engine`` takes."""
    for option in reversed(
        [
            checkpoint_option,
            click.option(
                "--batch-size",
                type=click.IntRange(min=1),
                default=64,
                show_default=True,
                help="Images embedded at a time.",
            ),
            click.option("--device", type=click.Choice(["cpu", "cuda"]), help="[default: cuda if there is one]"),
            click.option(
                "--precision",
                type=click.Choice(["fp32", "bf16"]),
                default="fp32",
                show_default=True,
                help="Of the network's products; bf16 is quicker and scores a little differently.",
            ),
            click.option("--no-cache", is_flag=True, help="Neither use nor keep embeddings under $LRFR_DATA/cache."),
        ]
    ):
        command = option(command)
    return command


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
