"""Options of ``train`` that are settings of ``TrainConfig``; those not given come from the recipe."""

from __future__ import annotations

import math
import pkgutil
from typing import Any

import click

from model.options import Option
from model.training.config import TrainConfig

# functions that describe the choices of a setting, imported when they are needed
LISTED = {
    "recipe": "model.training.recipes:describe",
    "backbone": "commands.train_options:describe_backbones",
    "head": "model.heads:HEADS.describe",
    "losses": "model.losses.terms:TERMS.describe",
    "optimizer": "model.training.optimizers:OPTIMIZERS.describe",
    "schedule": "model.training.schedule:SCHEDULES.describe",
}


def config_options(command: Any) -> Any:
    """Adds an option for each setting."""
    for name, declared in reversed(TrainConfig.declared().items()):
        command = _click_option(name, declared)(command)
    return command


def _click_option(name: str, declared: Option) -> Any:
    flag = declared.flag or f"--{name.replace('_', '-')}"
    if declared.type is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=declared.help)
    metavar = declared.metavar or ("NAME[:OPTION=VALUE,...]" if declared.parse else None)
    return click.option(flag, name, type=_click_type(declared), metavar=metavar, help=declared.help)


def _click_type(declared: Option) -> click.ParamType:
    largest: Any = declared.max if declared.max < math.inf else None
    if declared.choices:
        return click.Choice(declared.choices)
    if declared.type is int:
        return click.IntRange(int(declared.min), largest)
    if declared.type is float:
        return click.FloatRange(declared.min, largest, min_open=declared.min_open, max_open=declared.max_open)
    return click.STRING


def print_list(settings: dict[str, Any]) -> bool:
    """Prints the choices of each setting whose value is ``help``; returns whether there was one."""
    requested = [name for name in LISTED if settings[name] == "help"]
    for name in requested:
        click.echo(pkgutil.resolve_name(LISTED[name])())
    return bool(requested)


def describe_backbones() -> str:
    """The help text of ``--backbone``."""
    from model.backbones import BACKBONES
    from model.backbones.summary import backbone_table

    options = sorted({option for backbone in BACKBONES.values() for option in backbone.options})
    return f"{backbone_table()}\n\noptions, where a backbone has them: {', '.join(options)}; costs at 128 px"
