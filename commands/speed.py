"""bench speed: times a stage against an ordinary implementation and against the bare library calls."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click import Choice, IntRange, Option

from benchmarks import read_benchmark
from benchmarks.speed import VGGFACE2_IDENTITIES
from commands.group import CommandError, interruptible
from commands.options import LocalPath, pick_device
from commands.outputs import JSON_FILE, PNG_FILE, check_outputs, writing
from pipeline.signals import delayed_interruption
from shards.messages import counted

if TYPE_CHECKING:
    from benchmarks.speed.faces import Setup
    from benchmarks.speed.timing import Timing

    Stage = Callable[[Setup], Iterator[Timing]]

_CPU_STAGES = ("build", "loader", "step", "eval")
_NETWORK = "Network; train --backbone help lists them. [default: spherenet20; quick: spherenet4]"
_BACKBONE = Option(["--backbone"], metavar="NAME", help=_NETWORK)
_DEVICE = Option(["--device"], type=Choice(["cpu", "cuda"]), help="Device of the network. [default: cuda if available]")
_IDENTITIES = "Identities in a step, each with an image per view. [default: 8; quick: 2]"
_BATCH_SIZE = Option(["--batch-size"], type=IntRange(min=2, max=VGGFACE2_IDENTITIES), help=_IDENTITIES)
_COMPILE = Option(["--compile/--no-compile"], show_default=False, help="Also time torch.compile.")


@click.group(short_help="Time a stage against an ordinary implementation.")
def speed() -> None:
    """Time a stage against an ordinary implementation; build and loader also against the bare library calls.

    All variants are timed alternately, in rounds. A ratio is the median over the rounds, with minimum and maximum in brackets.
    """


def _add(name: str, help: str, *options: Option, needs: Sequence[str] = ("VGGFace2",)) -> None:
    """Adds the command for a stage, or for all; ``needs``: the data sets to take faces from."""

    def command(root: Path | None, quick: bool, json_file: Path | None, chart: Path | None, **values: Any) -> None:
        if chart and chart.suffix.lower() != ".png":
            raise click.UsageError(f"--chart {chart}: the chart is a PNG; name a file that ends in .png")
        check_outputs({"--json": json_file, "--chart": chart})
        rounds = values.pop("rounds") or (2 if quick else 5)
        if "device" in values:
            values["device"] = pick_device(values["device"])
        values = {option: value for option, value in values.items() if value is not None}
        names = _CPU_STAGES if name == "all" else [name]
        load = functools.partial(importlib.import_module, package="benchmarks.speed")
        stages = [functools.partial(getattr(load(f".{stage}"), f"time_{stage}"), **values) for stage in names]
        if root and "VGGFace2" in needs:
            load(".faces").read_faces(root, 1)
        if root and "LFW" in needs:
            load(".eval").choose_pairs(read_benchmark("lfw", root), 1)
        run_stages(stages, root=root, rounds=rounds, quick=quick, json_file=json_file, chart=chart)

    data = f"Folder with {' and '.join(needs)} in it to take faces from. [default: faces are generated]"
    shared = [
        Option(["--root"], type=LocalPath(exists=True, file_okay=False), help=data),
        Option(["--rounds"], type=IntRange(min=1), help="Timed calls of each variant. [default: 5; quick: 2]"),
        Option(["--quick"], is_flag=True, help="Take less than a minute; the times are rough."),
        Option(["--json", "json_file"], type=JSON_FILE, help="Write the times of all rounds, after each table."),
        Option(["--chart"], type=PNG_FILE, help="Draw the rates as PNG."),
    ]
    speed.command(name, help=help, short_help=help.partition(":")[0], params=[*shared, *options])(command)


_add("build", "Sources of several sizes to shards: against a file per image, and bare decode, warp and encode.")
_add("loader", "Training batches from crops: against a DataLoader over files, and bare DALI decoding.")
_add("step", "The training step, against four passes in fp32.", _BACKBONE, _BATCH_SIZE, _DEVICE, _COMPILE)
_add("eval", "LFW at five resolutions on the CPU: bench's engine against pair by pair.", _BACKBONE, needs=["LFW"])
_add("gpu", "Everything that a GPU changes: decoding, degradation, loader and step. Runs on a CPU, too.", _DEVICE)
_add("all", "build, loader, step and eval with default settings, on the CPU.", needs=["VGGFace2", "LFW"])


def run_stages(
    stages: Sequence[Stage], *, quick: bool, json_file: Path | None, chart: Path | None, **setup: Any
) -> None:
    """Runs stages one after another; each table is saved and printed as soon as it is measured."""
    from benchmarks.speed.faces import Setup
    from benchmarks.speed.results import as_line, as_table, machine, write_chart, write_json
    from model.errors import explained_memory

    click.echo(as_line(machine()))
    timings: list[Timing] = []
    saved: dict[str, str] = {}
    less_memory = explained_memory("use --quick, or a lower --batch-size where the stage has one")
    with interruptible(lambda: "; ".join(saved.values())), less_memory, _scratch() as scratch:
        shared = Setup(scratch=scratch, quick=quick, **setup)
        for timing in (timing for stage in stages for timing in stage(shared)):
            timings.append(timing)
            if json_file:
                with writing("--json", json_file):
                    write_json(timings, json_file, quick=quick)
                saved["--json"] = f"{counted(len(timings), 'table')} saved in {json_file}"
            if chart:
                with delayed_interruption(), writing("--chart", chart):
                    write_chart(timings, chart, quick=quick)
                saved["--chart"] = f"chart: {chart}"
            click.echo("\n" + as_table(timing, quick=quick))


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    wanted = os.environ.get("TMPDIR")
    if wanted and os.path.realpath(tempfile.gettempdir()) != os.path.realpath(wanted):
        raise CommandError(f"$TMPDIR {wanted}: cannot be written to; name a folder that can, or unset it")
    with tempfile.TemporaryDirectory(prefix="lrfr-speed-") as folder:
        yield Path(folder)
