"""bench: from a network to a score."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from benchmarks import BENCHMARKS, Benchmark, read_benchmark
from commands.group import CommandError, expected, interruptible, line_of
from commands.network import open_engine
from commands.options import allow_missing_option, engine_options, folder
from commands.outputs import OutputPath, check_apart, writing
from commands.speed import speed

_MOST_COMPARED = 26  # files: letters


@click.group()
def bench() -> None:
    """Score a checkpoint on a public benchmark."""


def scoring(command: Any) -> Any:
    """The options that all benchmarks share."""
    for option in reversed(
        [
            engine_options,
            click.option("--json", "json_file", type=OutputPath(), help="Write figures and scores as JSON."),
            click.option(
                "--report", type=OutputPath(folder=True), help="Folder for a report: HTML, Markdown, pictures."
            ),
            allow_missing_option("Score without images that cannot be used: partial figures."),
        ]
    ):
        command = option(command)
    return command


def landmarks_option(help: str) -> Any:
    """``--landmarks`` of a benchmark."""
    return click.option("--landmarks", type=click.Path(path_type=Path), multiple=True, help=help)


def add_benchmark(name: str, benchmark: Benchmark) -> None:
    """Makes ``bench NAME``."""

    @scoring
    @folder("--root", benchmark.folder, help="The data set's folder.")
    def command(root: Path, landmarks: tuple[Path, ...] = (), **options: Any) -> None:
        failed = score([name], lambda _: benchmark.read(root, landmarks), **options)
        if failed:
            raise failed[name]

    if benchmark.aligned:
        command = landmarks_option("Table of landmarks; may be given several times. [default: found under --root]")(
            command
        )
    bench.command(name, help=benchmark.summary, short_help=benchmark.summary.partition(":")[0])(command)


for _name, _benchmark in BENCHMARKS.items():
    add_benchmark(_name, _benchmark)


@bench.command("all", short_help="Every benchmark whose data set is there.")
@scoring
@folder("--root", help="The folder with all data sets.")
def bench_all(root: Path, **options: Any) -> None:
    """Every benchmark whose data set is there; says which are not."""
    from benchmarks.errors import AbsentError

    failed = score(list(BENCHMARKS), lambda name: read_benchmark(name, root), **options)
    for name, error in failed.items():
        why = "not found" if isinstance(error, AbsentError) else "not scored"
        click.echo(f"{name}: {why}: {line_of(error).removeprefix(f'bench {name}: ')}", err=True)
    wrong = [error for error in failed.values() if not isinstance(error, AbsentError)]
    if len(failed) == len(BENCHMARKS):
        raise CommandError(f"{root}: nothing was scored; --root names the folder with LFW, SCface, QMUL-SurvFace, ...")
    if wrong:
        raise CommandError(f"{len(wrong)} of {len(BENCHMARKS)} benchmarks could not be scored, see above")


def score(
    names: list[str],
    read: Callable[[str], Any],
    *,
    json_file: Path | None,
    report: Path | None,
    allow_missing: bool,
    **network: Any,
) -> dict[str, Exception]:
    """Scores a checkpoint on each benchmark, prints, writes what was asked for; returns why others were not scored.

    The JSON is written after each benchmark, the report however the command ends: hours of work are in them.

    Args:
        network: as ``open_engine`` takes it.
    """
    from benchmarks.engine.runner import run
    from benchmarks.report.tables import result_text
    from benchmarks.scoring.results import write_json

    check_apart(json_file, report)
    results: list[Any] = []
    failed: dict[str, Exception] = {}
    kept: dict[str, str] = {}
    with (
        interruptible(lambda: "; ".join(kept.values())),
        _reported(results, report, kept),
        open_engine(**network) as (engine, _, facts),
    ):
        for name in names:
            try:
                results.append(run(read(name), engine, checkpoint=facts, allow_missing=allow_missing))
            except Exception as error:
                if not expected(error):
                    raise
                failed[name] = error
                continue
            if json_file:
                with writing("--json", json_file):
                    write_json(results, json_file)
                kept["--json"] = f"{len(results)} of {len(names)} results are in {json_file}"
            click.echo(result_text(results[-1]) + "\n" * (len(names) > 1))
    if "--report" in kept:
        click.echo(kept["--report"])
    return failed


@contextlib.contextmanager
def _reported(results: list[Any], report: Path | None, kept: dict[str, str]) -> Iterator[None]:
    """Writes the report of the ``results`` there are, and tells in ``kept`` where, however the block ends."""
    from benchmarks.report.page import write_report

    try:
        yield
    finally:
        if results and report:
            with writing("--report", report):
                kept["--report"] = f"report: {write_report(results, report)}"


bench.add_command(speed)


@bench.command("compare", short_help="Two or more results side by side.")
@click.argument("results", type=click.Path(path_type=Path), nargs=-1, required=True)
def compare_results(results: tuple[Path, ...]) -> None:
    """Set two or more --json files side by side, with paired intervals of the differences."""
    from benchmarks.report.comparison_table import compare
    from benchmarks.report.document import as_text

    if not 2 <= len(results) <= _MOST_COMPARED:
        raise click.UsageError(f"compare needs 2 to {_MOST_COMPARED} files; these are {len(results)}")
    found = compare(list(results))
    for grid in found.grids:
        click.echo(as_text(grid) + "\n")
    click.echo("\n".join(found.legend))
