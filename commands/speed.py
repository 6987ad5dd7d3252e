"""bench speed: what a stage costs, against a plain way to do it and against the bare library calls, in one run."""

from __future__ import annotations

import contextlib
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
                "--rounds", type=click.IntRange(min=1), help="Timed calls of each kind. [default: 7; quick: 2]"
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
            measured += stage(root=root, folder=folder, rounds=rounds or (2 if quick else 7), quick=quick, **options)
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
