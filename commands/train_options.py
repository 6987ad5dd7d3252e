"""Options of ``train`` that are settings of ``TrainConfig``; those not given come from the recipe."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import click

from model.options import Option, Options, describe
from model.training.config import TrainConfig

LISTED = ("backbone", "head", "losses", "optimizer", "schedule")


def config_options(command: Any) -> Any:
    """Adds an option for each setting."""
    for name, declared in reversed(TrainConfig.declared().items()):
        command = _click_option(name, declared)(command)
    return command


def _click_option(name: str, declared: Option) -> Any:
    flag = declared.flag or f"--{name.replace('_', '-')}"
    if declared.value_type is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=declared.help)
    return click.option(flag, name, type=_click_type(declared), metavar=declared.metavar, help=declared.help)


def _click_type(declared: Option) -> click.ParamType:
    largest: Any = declared.max if declared.max < math.inf else None
    if declared.choices:
        return click.Choice(declared.choices)
    if declared.value_type is int:
        return click.IntRange(int(declared.min), largest)
    if declared.value_type is float:
        return click.FloatRange(declared.min, largest, min_open=declared.min_open, max_open=declared.max_open)
    return click.STRING


def print_list(settings: dict[str, Any]) -> bool:
    """Prints what there is to choose from for each setting whose value is ``help``; returns whether there was one."""
    requested = [name for name in LISTED if settings[name] == "help"]
    for name in requested:
        click.echo(_list(name))
    return bool(requested)


def _list(setting: str) -> str:
    from model.heads import HEADS
    from model.losses.terms import TERMS
    from model.training.optimizers import OPTIMIZERS
    from model.training.schedule import SCHEDULES

    known: dict[str, Mapping[str, type[Options]]] = {
        "head": HEADS,
        "losses": TERMS,
        "optimizer": OPTIMIZERS,
        "schedule": SCHEDULES,
    }
    return describe(known[setting]) if setting in known else _backbones()


def _backbones() -> str:
    from model.backbones import BACKBONES
    from model.backbones.summary import backbone_table

    options = sorted({option for backbone in BACKBONES.values() for option in backbone.options})
    return f"{backbone_table()}\n\noptions, where a backbone has them: {', '.join(options)}; costs at 128 px"
