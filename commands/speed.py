"""bench speed: what a stage costs, against a plain way to do it and against the bare library calls, in one run."""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.speed import VGGFACE2
from commands.group import CommandError, expected, interruptible, line_of
from commands.outputs import OutputPath, writing

Stage = Callable[..., Iterator[Any]]

_TRAINING, _SCORING = ("VGGFace2",), ("LFW",)  # data sets that stages take faces from


@click.group()
def speed() -> None:
    """Time a stage against a plain way to do it, build and loader also against bare library calls.

    Rounds take turns; a ratio is the median of the rounds' ratios, with the least and the greatest in brackets.
    """


def timing_options(*needs: str) -> Any:
    """The options that all stages share; ``needs``: data sets that they take faces from."""

    def add(command: Any) -> Any:
        for option in reversed(
            [
                click.option(
                    "--root",
                    type=click.Path(path_type=Path, exists=True, file_okay=False),
                    help=f"Folder with {' and '.join(needs)} in it to take faces from. [default: faces are generated]",
                ),
                click.option(
                    "--rounds", type=click.IntRange(min=1), help="Timed calls of each kind. [default: 5; quick: 2]"
                ),
                click.option(
                    "--quick", is_flag=True, help="Little work, so that it is done within a minute; figures are rough."
                ),
                click.option(
                    "--json",
                    "json_file",
                    type=OutputPath(),
                    help="Write the times of every round as JSON, after each table.",
                ),
                click.option("--chart", type=OutputPath(), help="Draw the rates, of scale the costs, as PNG."),
            ]
        ):
            command = option(command)
        return command

    return add


@speed.command("scale", short_help="What building, opening, reading and searching cost as data grow.")
@timing_options(*_TRAINING)
def speed_scale(**options: Any) -> None:
    """What building shards, starting a loader, reading and scoring cost in time and memory as data grow.

    It takes some minutes, and about 3 GB in $TMPDIR. Opening and scoring are timed --rounds times, building once.
    """
    from benchmarks.speed.scale import time_scale

    report([time_scale], _TRAINING, **options)


def report(
    stages: Sequence[Stage],
    needs: Sequence[str],
    *,
    root: Path | None,
    rounds: int | None,
    quick: bool,
    json_file: Path | None,
    chart: Path | None,
    **options: Any,
) -> None:
    """Runs stages one after another; each table is printed and in the JSON as soon as it is measured.

    Args:
        needs: data sets that ``root`` must have, looked at before anything is timed.
    """
    from benchmarks.speed.results import as_line, as_table, write_json
    from benchmarks.speed.timing import machine

    if chart and chart.suffix.lower() != ".png":
        raise click.UsageError(f"--chart {chart}: the chart is a PNG; name a file that ends in .png")
    if json_file and chart and json_file.resolve() == chart.resolve():
        raise click.UsageError(f"--json {json_file} and --chart {chart}: one would overwrite the other; name two files")
    if root:
        from benchmarks.speed.needs import check_root

        check_root(root, needs)
    click.echo(as_line(machine()))
    measured: list[Any] = []
    written: list[Path] = []
    with (
        _told(lambda: _kept(len(measured), written)),
        _charted(measured, chart, written, quick),
        _scratch() as folder,
    ):
        for stage in stages:
            for one in stage(root=root, folder=folder, rounds=rounds or (2 if quick else 5), quick=quick, **options):
                if json_file:
                    with writing("--json", json_file):
                        write_json([*measured, one], json_file, quick=quick)
                    written[:] = [json_file]
                measured.append(one)
                click.echo("\n" + as_table(one, quick=quick))


@contextlib.contextmanager
def _told(kept: Callable[[], str]) -> Iterator[None]:
    """What is ``kept`` is told of an interruption and of an expected failure."""
    try:
        with interruptible(kept):
            yield
    except Exception as error:
        if not (expected(error) and kept()):
            raise
        raise CommandError(f"{line_of(error)}; {kept()}") from None


def _kept(tables: int, written: Sequence[Path]) -> str:
    """Where an interruption leaves what was measured."""
    places = ["above", *(f"in {path}" for path in written)]
    return f"what was measured until then, tables: {tables}, is {' and '.join(places)}" if tables else ""


@contextlib.contextmanager
def _charted(measured: list[Any], chart: Path | None, written: list[Path], quick: bool) -> Iterator[None]:
    """Draws what is ``measured``, however the block ends, and adds to what is ``written``."""
    from benchmarks.speed.results import write_chart

    try:
        yield
    finally:
        if measured and chart:
            with writing("--chart", chart):
                write_chart(measured, chart, quick=quick)
            written.append(chart)


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    asked = os.environ.get("TMPDIR")
    if asked and Path(tempfile.gettempdir()).resolve() != Path(asked).resolve():
        raise CommandError(f"$TMPDIR {asked}: cannot be written to; name a folder that can, or unset it")
    with tempfile.TemporaryDirectory(prefix="lrfr-speed-") as folder:
        yield Path(folder)


@speed.command("eval", short_help="LFW at five resolutions.")
@timing_options(*_SCORING)
@click.option(
    "--backbone",
    metavar="NAME",
    help="Network, untrained; train --backbone help lists them. [default: spherenet20; quick: spherenet4]",
)
def eval_command(**options: Any) -> None:
    """LFW at five resolutions on the CPU, from files to accuracies: bench's engine against pair after pair.

    Of generated faces few people are in many pairs, so that the gain is greater than on LFW: give --root for figures.
    """
    from commands.speed_eval import time_eval

    report([time_eval], _SCORING, **options)


@speed.command("build")
@timing_options(*_TRAINING)
def build(**options: Any) -> None:
    """Sources of several sizes to shards: against a file per image, and bare decode, warp and encode."""
    from benchmarks.speed.build import time_build

    report([time_build], _TRAINING, **options)


@speed.command("loader")
@timing_options(*_TRAINING)
def loader(**options: Any) -> None:
    """Training batches from crops: against a DataLoader over files, and DALI's bare decoding."""
    report([_loader_stage()], _TRAINING, **options)


def _loader_stage() -> Stage:
    """Batches, some of them normalised as training does it."""
    from benchmarks.speed.loader import time_loader
    from model.inputs import normalise

    return functools.partial(time_loader, normalise=normalise)


@speed.command("step")
@timing_options(*_TRAINING)
@click.option(
    "--backbone",
    metavar="NAME",
    help="Network; train --backbone help lists them. [default: spherenet20; quick: spherenet4]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=2, max=VGGFACE2[1]),
    help="Identities in a step, each with an image a view. [default: 8; quick: 2]",
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="[default: cuda if there is one]")
@click.option("--compile/--no-compile", help="Time torch.compile, too.")
def time_step(**options: Any) -> None:
    """The training step: four passes in fp32 as the paper's text has it, against ours."""
    from commands.speed_step import step

    report([step], _TRAINING, **options)


@speed.command("gpu")
@timing_options(*_TRAINING)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="[default: cuda if there is one]")
def time_gpu(**options: Any) -> None:
    """Everything that a GPU changes: decoding, degradation, loader alone, step alone, both; without one, on the CPU."""
    from commands.speed_gpu import gpu

    report([gpu], _TRAINING, **options)


@speed.command("all", short_help="build, loader, step and eval.")
@timing_options(*_TRAINING, *_SCORING)
def time_all(**options: Any) -> None:
    """Build, loader, step and eval, one after another, with their default settings, on the CPU."""
    from benchmarks.speed.build import time_build
    from commands.speed_eval import time_eval
    from commands.speed_step import step

    report(
        [
            time_build,
            _loader_stage(),
            functools.partial(step, backbone=None, batch_size=None, device="cpu", compile=False),
            functools.partial(time_eval, backbone=None),
        ],
        [*_TRAINING, *_SCORING],
        **options,
    )
