"""verify: checks a shard set."""

from __future__ import annotations

from pathlib import Path

import click

from commands.group import CommandError
from commands.options import PATH, data


@click.command(short_help="Check a shard set.")
@click.argument("shards", type=PATH, default=data("shards"))
@click.option("--full", is_flag=True, help="Read every byte and compare hashes.")
def verify(shards: Path, full: bool) -> None:
    """Check a shard set. Prints its problems, at most five of a kind per file; exits with 1 if there are any."""
    from pipeline.progress import Progress
    from shards.messages import counted, printable
    from shards.schema import Manifest
    from shards.verify import verify as problems_of

    manifest = Manifest.read(shards)
    with Progress("verify", manifest.shards, "shards") as progress:
        problems = list(problems_of(shards, full=full, on_shard=progress.update))
    for problem in problems:
        click.echo(printable(problem))
    if problems:
        raise CommandError(
            f"{shards}: {counted(len(problems), 'problem')}; restore the files, or delete the folder and build again"
        )
    checked = "" if full else " (of the tars only the sizes; --full reads every byte)"
    click.echo(f"{shards}: valid; {counted(manifest.images, 'image')}, {counted(manifest.shards, 'shard')}{checked}")
