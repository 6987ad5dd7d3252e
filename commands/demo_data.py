"""demo-data: generates data sets of faces."""

from __future__ import annotations

from pathlib import Path

import click

from commands.group import interruptible
from commands.options import folder
from shards.messages import print_stderr


@click.command("demo-data", short_help="Generate faces in the layouts of the public data sets.")
@folder("--out", help="Folder for the data sets.")
@click.option(
    "--identities",
    type=click.IntRange(2, 100_000),
    default=96,
    help="Identities of the training set; the test sets have half as many others.",
)
@click.option("--images", type=click.IntRange(2, 1000), default=8, help="Images per identity.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Seed of the generated faces.")
def demo_data(out: Path, identities: int, images: int, seed: int) -> None:
    """Generate faces in the folder layouts of the public data sets."""
    from pipeline.demo.generate import write_demo_data

    with interruptible():
        write_demo_data(out, identities=identities, images=images, seed=seed)
    print_stderr(
        f"done: faces of {identities:,} people to train on, of {max(identities // 2, 2):,} others to test on: {out}"
    )
