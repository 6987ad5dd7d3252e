"""verify: checks a shard set."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from commands.group import CommandError
from commands.options import STORE_PATH, data
from shards.messages import counted, printable

if TYPE_CHECKING:
    from shards.schema import Manifest
    from shards.store import Store


@click.command(short_help="Check a shard set.")
@click.argument("shards", type=STORE_PATH, default=data("shards"))
@click.option("--full", is_flag=True, help="Read the tars, too: every byte, compared with its hash.")
def verify(shards: Path | Store, full: bool) -> None:
    """Check a shard set, and print its problems, at most five of a kind per file. The exit code is 1 if there are any."""
    from pipeline.progress import Progress

    with _opened(shards) as (manifest, problems_of), Progress("verify", manifest.shards, "shards") as progress:
        problems = list(problems_of(full=full, on_shard=progress.update))
    for problem in problems:
        click.echo(printable(problem))
    if problems:
        raise CommandError(
            f"{shards}: {counted(len(problems), 'problem')}; restore the files, or delete the folder and build again"
        )
    checked = "" if full else " (of the tars only the sizes; --full reads every byte)"
    click.echo(f"{shards}: valid; {counted(manifest.images, 'image')}, {counted(manifest.shards, 'shard')}{checked}")


@contextlib.contextmanager
def _opened(shards: Path | Store) -> Iterator[tuple[Manifest, Callable[..., Iterator[str]]]]:
    """The manifest of a set, and the function that finds its problems."""
    if isinstance(shards, Path):
        from shards.schema import Manifest
        from shards.verify import verify as problems_of

        yield Manifest.read(shards), functools.partial(problems_of, shards)
        return
    from shards.stored_set import StoredSet

    with StoredSet(shards) as stored:
        yield stored.manifest, stored.problems
