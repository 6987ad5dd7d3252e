"""bench compare: compares saved results, on the terminal and as a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from commands.options import PATH
from commands.outputs import open_report, report_option, writing
from shards.messages import counted

if TYPE_CHECKING:
    from benchmarks.scoring.comparison import Network

MAX_COMPARED = 26  # networks, named by letters


@click.command("compare", short_help="Compare the results of several networks.")
@click.argument("results", type=PATH, nargs=-1, required=True)
@click.option("--name", multiple=True, help="Name of each network, in their order; may be repeated.")
@report_option
def compare(results: tuple[Path, ...], name: tuple[str, ...], report: Path | None) -> None:
    """Compare the networks in files of bench --json: metrics side by side, and differences with paired intervals."""
    from benchmarks.scoring.comparison import read_networks

    networks = read_networks(results)
    if not 2 <= len(networks) <= MAX_COMPARED:
        raise click.UsageError(f"compare needs 2 to {MAX_COMPARED} networks, found {len(networks)} in the files")
    check_names(name, len(networks))
    pages = open_report(report) if report else None
    networks = show(networks, name)
    if report and pages:
        with writing("--report", report):
            path = pages.add_all([result for network in networks for result in network.results.values()])
        click.echo(f"report: {path}")


def check_names(names: Sequence[str], networks: int) -> None:
    """Raises: UsageError: some networks have a name, and some have none."""
    if len(names) not in (0, networks):
        given, expected = counted(len(names), "name"), counted(networks, "network")
        raise click.UsageError(f"--name: {given} for {expected}; name all of them, or none")


def show(networks: Sequence[Network], names: Sequence[str] = ()) -> list[Network]:
    """Prints networks side by side, and returns them with distinct names: ``names``, or those that they have."""
    from benchmarks.report.comparison_table import comparison_tables, named
    from benchmarks.report.document import as_text

    found = named(networks, names)
    tables = comparison_tables(found)
    for grid in tables.grids:
        click.echo(as_text(grid) + "\n")
    click.echo("\n".join(tables.legend))
    return found
