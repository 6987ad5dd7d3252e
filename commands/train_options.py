"""Options of ``train``: settings of ``TrainConfig``, and checks of the others."""

from __future__ import annotations

import math
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks import BENCHMARKS, is_own_benchmark
from commands.options import check_benchmark, is_given
from model.options import Option
from model.training.config import TrainConfig

if TYPE_CHECKING:
    from shards.store import Store

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
    """Adds an option for each setting; settings that are not given come from the recipe."""
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


def benchmark_names(ctx: click.Context, parameter: click.Parameter, value: str | None) -> list[str]:
    """``lfw,mine.toml`` -> the benchmark names and files, without duplicates."""
    names = list(dict.fromkeys(name.strip() for name in (value or "").split(",") if name.strip()))
    if value is not None and not names:
        raise click.BadParameter(f"{value!r} names no benchmark; choose from {', '.join(BENCHMARKS)}")
    return list(map(check_benchmark, names))


def check_cache(shards: Path | Store) -> None:
    """Raises: UsageError: options of the cache, but the set is on this machine."""
    for name in ("cache_folder", "cache_size"):
        if isinstance(shards, Path) and is_given(name):
            flag = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"{flag} is for a set in an object store, but {shards} is a path; leave it out")


def check_evaluation(benchmarks: list[str], best: str | None) -> None:
    """Raises: UsageError: evaluation options without ``--eval``, or ``--best`` of a benchmark that is not evaluated."""
    names = [name_of(benchmark) for benchmark in benchmarks]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise click.UsageError(
            f"--eval: two benchmarks are called {twice}; give one of them another name = ... in its file"
        )
    for name in ("eval_every", "eval_root", "allow_missing"):
        if not benchmarks and is_given(name):
            flag = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"{flag} is for evaluation; name benchmarks with --eval, or leave it out")
    if best is not None and best.partition("/")[0] not in names:
        named = f"--best {best}: --eval names {', '.join(names) or 'nothing'}"
        raise click.UsageError(f"{named}; expected a metric of an evaluated benchmark, such as lfw/accuracy@8")


def name_of(benchmark: str) -> str:
    """The name of a benchmark, or that of a benchmark in a file."""
    if not is_own_benchmark(benchmark):
        return benchmark
    from benchmarks.datasets.own_benchmark import read_own_benchmark

    return read_own_benchmark(Path(benchmark)).name
