"""inspect: prints statistics of a shard set and draws a contact sheet."""

from __future__ import annotations

import errno
from pathlib import Path

import click

from commands.group import interruptible
from commands.options import PATH, data
from commands.outputs import OutputPath


@click.command(short_help="Print statistics of a shard set and draw a contact sheet.")
@click.argument("shards", type=PATH, default=data("shards"))
@click.option("--out", type=OutputPath(), help="Contact sheet PNG. [default: SHARDS/contact-sheet.png]")
def inspect(shards: Path, out: Path | None) -> None:
    """Print statistics of a shard set and draw a contact sheet of what the network sees."""
    from pipeline.inspect import contact_sheet, statistics

    click.echo(statistics(shards))
    sheet = out or shards / "contact-sheet.png"
    try:
        with interruptible():
            contact_sheet(shards, sheet)
    except OSError as error:
        if out or error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        click.echo(f"no contact sheet: {shards} is read-only; name a file with --out", err=True)
    else:
        click.echo(f"contact sheet: {sheet}")
