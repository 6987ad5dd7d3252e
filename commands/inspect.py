"""inspect: prints statistics of a shard set, draws a contact sheet and writes a report."""

from __future__ import annotations

import errno
from pathlib import Path

import click

from commands.group import interruptible
from commands.options import PATH, data
from commands.outputs import PNG_FILE, PagePath, check_outputs
from pipeline.degradation.presets import Degradation, find_degradation
from shards.messages import print_stderr


@click.command(short_help="Print statistics of a shard set; draw a contact sheet or a report.")
@click.argument("shards", type=PATH, default=data("shards"))
@click.option("--out", type=PNG_FILE, help="Contact sheet PNG. [default: SHARDS/contact-sheet.png; none with --report]")
@click.option(
    "--degrade",
    "degradations",
    multiple=True,
    type=find_degradation,
    metavar="NAME|FILE.toml",
    help="Show realistic degradation: surveillance, webcam, blind-sr or a TOML file; may be repeated.",
)
@click.option(
    "--report",
    type=PagePath("inspect.html"),
    help="Write an HTML page with examples, histograms and rejected rows: a .html file, or a folder for inspect.html.",
)
def inspect(shards: Path, out: Path | None, degradations: tuple[Degradation, ...], report: Path | None) -> None:
    """Print statistics of a shard set, and draw a contact sheet of what the network sees, or write a report."""
    from pipeline.inspect import statistics

    check_outputs({"--out": out, "--report": report})
    click.echo(statistics(shards))
    with interruptible():
        if out or degradations or not report:
            draw(shards, out, degradations)
        if report:
            from pipeline.set_report import write_set_report

            write_set_report(shards, report)
            click.echo(f"report: {report}")


def draw(shards: Path, out: Path | None, degradations: tuple[Degradation, ...]) -> None:
    """Draws the contact sheet, by default in the set, unless that is read-only."""
    from pipeline.inspect import contact_sheet

    sheet = out or shards / "contact-sheet.png"
    try:
        contact_sheet(shards, sheet, degradations)
    except OSError as error:
        if out or error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        print_stderr(f"no contact sheet: {shards} is read-only; name a file with --out")
    else:
        click.echo(f"contact sheet: {sheet}")
