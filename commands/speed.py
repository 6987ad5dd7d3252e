"""bench speed: what a stage costs, against a plain way to do it and against the bare library calls, in one run."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from commands.outputs import OutputPath, writing

Stage = Callable[..., Iterator[Any]]


@click.group()
def speed() -> None:
    """Time a stage against a plain way to do it and against bare library calls."""


def timing_options(command: Any) -> Any:
    """The options that all stages share."""
    for option in reversed(
        [
            click.option(
                "--root",
                type=click.Path(path_type=Path, exists=True, file_okay=False),
                help="Folder with VGGFace2 and LFW to take faces from. [default: faces are generated]",
            ),
            click.option(
                "--rounds", type=click.IntRange(min=1), help="Timed calls of each kind. [default: 5; quick: 2]"
            ),
            click.option(
                "--quick", is_flag=True, help="Little work, so that it is done within a minute; figures are rough."
            ),
            click.option("--json", "json_file", type=OutputPath(), help="Write the times of every round as JSON."),
            click.option("--chart", type=OutputPath(), help="Write a bar chart as PNG."),
        ]
    ):
        command = option(command)
    return command


@speed.command("scale", short_help="What building, opening, reading and searching cost as data grow.")
@timing_options
def speed_scale(**options: Any) -> None:
    """What building shards, starting a loader, reading and scoring cost in time and memory as data grow."""
    from benchmarks.speed.scale import time_scale

    report([time_scale], **options)


def report(
    stages: list[Stage],
    *,
    root: Path | None,
    rounds: int | None,
    quick: bool,
    json_file: Path | None,
    chart: Path | None,
    **options: Any,
) -> None:
    """Runs stages one after another, prints their tables and writes what was asked for."""
    from benchmarks.speed.results import as_report, write_chart, write_json

    measured: list[Any] = []
    with _scratch() as folder:
        for stage in stages:
            measured += stage(root=root, folder=folder, rounds=rounds or (2 if quick else 5), quick=quick, **options)
    if json_file:
        with writing("--json", json_file):
            write_json(measured, json_file)
    if chart:
        with writing("--chart", chart):
            write_chart(measured, chart)
    click.echo(as_report(measured))


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="lrfr-speed-") as folder:
        yield Path(folder)


@speed.command("eval", short_help="LFW at five resolutions.")
@timing_options
@click.option("--backbone", metavar="NAME", help="Network, untrained. [default: spherenet20; quick: spherenet4]")
def eval_command(**options: Any) -> None:
    """LFW at five resolutions on the CPU, from files to accuracies: bench's engine against pair after pair."""
    from commands.speed_eval import time_eval

    report([time_eval], **options)


@speed.command("build")
@timing_options
def build(**options: Any) -> None:
    """Sources of several sizes to shards: against a file per image, and bare decode, warp and encode."""
    from benchmarks.speed.build import time_build

    report([time_build], **options)


@speed.command("loader")
@timing_options
def loader(**options: Any) -> None:
    """Training batches from crops: against a DataLoader over files, and DALI's bare decoding."""
    from benchmarks.speed.loader import time_loader

    report([time_loader], **options)


@speed.command("step")
@timing_options
@click.option(
    "--backbone",
    metavar="NAME",
    help="Network; train --backbone help lists them. [default: spherenet20; quick: spherenet4]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=2),
    help="Identities in a step, each with an image a view. [default: 8; quick: 2]",
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="[default: cuda if there is one]")
@click.option("--compile/--no-compile", help="Time torch.compile, too.")
def time_step(**options: Any) -> None:
    """The training step: four passes in fp32 as the paper's text has it, against ours."""
    from commands.speed_step import step

    report([step], **options)


@speed.command("gpu")
@timing_options
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="[default: cuda if there is one]")
def time_gpu(**options: Any) -> None:
    """Everything that a GPU changes: decoding, degradation, loader alone, step alone, both; without one, on the CPU."""
    from commands.speed_gpu import gpu

    report([gpu], **options)


@speed.command("all", short_help="build, loader, step and eval.")
@timing_options
def time_all(**options: Any) -> None:
    """Build, loader, step and eval, one after another, with their default settings."""
    from benchmarks.speed.build import time_build
    from benchmarks.speed.loader import time_loader
    from commands.speed_eval import time_eval
    from commands.speed_step import step

    report(
        [
            time_build,
            time_loader,
            functools.partial(step, backbone=None, batch_size=None, device="cpu", compile=False),
            functools.partial(time_eval, backbone=None),
        ],
        **options,
    )
