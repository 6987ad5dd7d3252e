"""bench: from a network to a score."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from benchmarks import BENCHMARKS, Benchmark, read_benchmark
from commands.group import CommandError
from commands.network import open_engine
from commands.options import allow_missing_option, engine_options, folder


@click.group()
def bench() -> None:
    """Score a checkpoint on a public benchmark."""


def scoring(command: Any) -> Any:
    """The options that all benchmarks share."""
    for option in reversed(
        [
            engine_options,
            click.option(
                "--json", "json_file", type=click.Path(path_type=Path), help="Write figures and scores as JSON."
            ),
            click.option(
                "--report", type=click.Path(path_type=Path), help="Folder for a report: HTML, Markdown, pictures."
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
            raise failed[0]

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
    for error in failed:
        click.echo(f"{'not found' if isinstance(error, AbsentError) else 'Error'}: {error}", err=True)
    wrong = [error for error in failed if not isinstance(error, AbsentError)]
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
) -> list[Exception]:
    """Scores a checkpoint on each benchmark, prints, writes what was asked for; returns why others were not scored.

    Args:
        network: as ``open_engine`` takes it.
    """
    from benchmarks.errors import ProtocolError
    from benchmarks.report import print_result, write_report
    from benchmarks.result import write_json
    from benchmarks.runner import run

    results: list[Any] = []
    failed: list[Exception] = []
    with open_engine(**network) as (engine, facts):
        for name in names:
            try:
                results.append(run(read(name), engine, checkpoint=facts, allow_missing=allow_missing))
                click.echo(print_result(results[-1]) + "\n" * (len(names) > 1))
            except ProtocolError as error:
                failed.append(error)
    if results and json_file:
        write_json(results, json_file)
    if results and report:
        click.echo(f"report: {write_report(results, report)}")
    return failed


@bench.command("compare", short_help="Two or more results side by side.")
@click.argument("results", type=click.Path(path_type=Path), nargs=-1, required=True)
def compare_results(results: tuple[Path, ...]) -> None:
    """Set two or more --json files side by side, with paired intervals of the differences."""
    from benchmarks.compare import compare, legend
    from benchmarks.document import as_text

    if len(results) < 2:
        raise click.UsageError("compare needs two files or more")
    for grid in compare(list(results)):
        click.echo(as_text(grid) + "\n")
    click.echo("\n".join(legend(list(results))))
