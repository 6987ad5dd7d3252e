"""audit: looks for faults in a shard set with a trained network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from benchmarks import BENCHMARKS, read_benchmark
from commands.group import CommandError
from commands.network import open_engine
from commands.options import PATH, check_benchmark, data, engine_options, folder, is_given
from commands.outputs import FOLDER, PAGE, PARQUET_FILE, OutputPath
from shards.messages import printable


@click.command(short_help="Find wrong labels, duplicates and people of benchmarks in a shard set.")
@click.argument("shards", type=PATH, default=data("shards"))
@click.option("--out", type=FOLDER, required=True, help="Folder for the findings.")
@click.option(
    "--against",
    callback=lambda _context, _option, names: list(map(check_benchmark, names)),
    metavar="NAME",
    multiple=True,
    help=f"Benchmark whose photographs and people should not be in the set: {', '.join(BENCHMARKS)}, or a TOML file"
    " that describes your own; may be repeated.",
)
@folder("--root", help="Folder that contains the data sets of --against.")
@engine_options
def audit(shards: Path, out: Path, against: tuple[str, ...], root: Path, **options: Any) -> None:
    """Find faults of a shard set with a trained network.

    Finds images with a wrong label, identities that are one person, images that are one photograph, and people and
    photographs of benchmarks. Writes all findings to audit.parquet, pictures of them to audit.html, and the most certain
    ones to exclude.txt, for build-shards --exclude.
    """
    from benchmarks.audit.exclusions import is_as_written
    from benchmarks.audit.run import EXCLUDE, SHEET, TABLE, audit_set

    if is_given("root") and not against:
        raise click.UsageError("--root is for the data sets of --against; name benchmarks, or leave it out")
    context = click.get_current_context()
    PARQUET_FILE.convert(out / TABLE, None, context)
    PAGE.convert(out / SHEET, None, context)
    OutputPath().convert(out / EXCLUDE, None, context)
    if (out / EXCLUDE).exists() and not is_as_written(out / EXCLUDE):
        raise CommandError(
            f"{out / EXCLUDE}: is there and was edited, or no audit wrote it; rename it if you need it, or choose another"
            " --out"
        )
    with open_engine(**options) as (engine, _, facts):
        protocols = [read_benchmark(name, root) for name in dict.fromkeys(against)]
        summary = audit_set(shards, engine, out, protocols, facts)
    click.echo("\n".join(map(printable, summary)))
    click.echo(f"pictures: {out / SHEET}")
    click.echo(f"exclusion list: {out / EXCLUDE}")
