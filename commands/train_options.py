"""The options of ``train`` that make its configuration: each is a field of ``TrainConfig``, by default the recipe's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

_CHOICES: dict[str, tuple[str, str]] = {
    "--backbone": ("NAME[:OPTION=VALUE,...]", "Network, such as ir50 or spherenet20:pooling=true; help lists them."),
    "--head": ("NAME[:OPTION=VALUE,...]", "Head, such as arcface:scale=32,margin=0.4,sample=0.1; help lists them."),
    "--losses": ("TERM+TERM", "Loss terms, such as focal:gamma=2+octuplet:weight=0.5; help lists them."),
    "--optimizer": ("NAME[:OPTION=VALUE,...]", "Such as sgd:momentum=0.9 or adamw; help lists them."),
    "--schedule": (
        "NAME[:OPTION=VALUE,...]",
        "Learning rate over the steps, such as cosine:warmup=0.05; help lists them.",
    ),
    "--views": ("SIZE,SIZE", "Sizes in px that an identity's images are degraded to, such as 128,8-32,12x2."),
}
_WORDS: dict[str, tuple[tuple[str, ...], str]] = {
    "--init": (
        ("pytorch", "data"),
        "First weights: PyTorch's, or fitted to the first batch (spherenets learn sooner).",
    ),
    "--triplets": (("global", "rank"), "Triplets over the whole batch, or over each process's part of it."),
    "--degrade": (("exact", "fast"), "exact: Pillow bit for bit; fast: within 3 levels, sooner on a CPU."),
    "--precision": (("fp32", "bf16"), "Of the backbone's products."),
}
_NUMBERS: dict[str, tuple[Any, str]] = {
    "--freeze": (click.IntRange(min=0), "Stages of the network, from the first, that keep the weights of --from."),
    "--batch-size": (click.IntRange(min=1), "Identities in a batch over all processes, each with an image a view."),
    "--steps": (click.IntRange(min=1), "Updates in all."),
    "--lr": (click.FloatRange(min=0, min_open=True), "Learning rate at its peak."),
    "--weight-decay": (click.FloatRange(min=0), "L2 penalty, on all weights."),
    "--ema": (
        click.FloatRange(min=0, max=1, max_open=True),
        "Decay of averaged weights, which are then the ones scored; 0: none.",
    ),
    "--seed": (click.IntRange(0, (1 << 32) - 1), "Of the weights and of the batches."),
    "--log-every": (click.IntRange(min=1), "Steps between log lines; 1 up to 100 steps, else 20."),
    "--save-every": (click.IntRange(min=1), "Steps between checkpoints."),
    "--keep": (click.IntRange(min=1), "Checkpoints to keep."),
    "--eval-every": (click.IntRange(min=1), "Steps between evaluations; there is one before the first step, too."),
}
_FLAGS: dict[str, str] = {
    "--shard-head/--no-shard-head": "Share the classes among the processes: less memory for many identities.",
    "--compile/--no-compile": "Compile the network with torch.compile.",
}


def config_options(command: Any) -> Any:
    """Adds ``--recipe``, ``--config`` and an option for each setting."""
    options = [
        click.option(
            "--recipe",
            default="seed",
            show_default=True,
            metavar="NAME",
            help="Named settings to start from: seed (the reference's), quick, modern.",
        ),
        click.option(
            "--config",
            "config_file",
            type=click.Path(path_type=Path),
            help="TOML file of settings over the recipe's; options go over both.",
        ),
        click.option("--print-config", is_flag=True, help="Print all settings as TOML, and do nothing else."),
        *(click.option(flag, metavar=metavar, help=help) for flag, (metavar, help) in _CHOICES.items()),
        click.option(
            "--from",
            "pretrained",
            type=click.Path(),
            metavar="CHECKPOINT",
            help="Fine-tune: start from this network's weights, with a new head.",
        ),
        *(click.option(flag, type=click.Choice(words), help=help) for flag, (words, help) in _WORDS.items()),
        *(click.option(flag, type=kind, help=help) for flag, (kind, help) in _NUMBERS.items()),
        *(click.option(flag, default=None, help=help) for flag, help in _FLAGS.items()),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def print_list(options: dict[str, Any]) -> bool:
    """Prints what there is to choose from where an option's value is ``help``; whether one was."""
    lists = {
        "backbone": _backbones,
        "head": _heads,
        "losses": _losses,
        "optimizer": _optimizers,
        "schedule": _schedules,
    }
    asked = [name for name in lists if options[name] == "help"]
    for name in asked:
        click.echo(lists[name]())
    return bool(asked)


def _backbones() -> str:
    from model.backbones import BACKBONES
    from model.backbones.summary import backbone_table

    options = sorted({option for backbone in BACKBONES.values() for option in backbone.options})
    return f"{backbone_table()}\n\noptions, where a network has them: {', '.join(options)}; at 128 px"


def _heads() -> str:
    from model.heads import COMMON_OPTIONS, HEADS

    return _listed({name: (head.about, {**head.options, **COMMON_OPTIONS}) for name, head in HEADS.items()})


def _losses() -> str:
    from model.losses.terms import TERMS

    return _listed({name: (term.about, term.options) for name, term in TERMS.items()})


def _optimizers() -> str:
    from model.training.optimizers import OPTIMIZERS

    return _listed({name: ("", options) for name, options in OPTIMIZERS.items()})


def _schedules() -> str:
    from model.training.schedule import SCHEDULES

    return _listed({name: ("", options) for name, options in SCHEDULES.items()})


def _listed(known: dict[str, tuple[str, dict[str, Any]]]) -> str:
    lines = []
    for name, (about, options) in known.items():
        lines.append(f"{name}: {about}" if about else name)
        for option, facts in options.items():
            default = (
                "/".join(map(str, facts.default)) if isinstance(facts.default, tuple) else str(facts.default).lower()
            )
            written = f"{option}={default}"
            lines.append(f"    {written:<22} {facts.about}")
    return "\n".join(lines)
