"""demo-data, build-shards, verify, inspect: from photographs to shards."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from commands.group import CommandError, interruptible
from commands.options import data, folder

_KEPT = "what was finished is kept: run the same command to go on"


@click.command("demo-data")
@folder("--out", help="Where the data sets go.")
@click.option(
    "--identities",
    type=click.IntRange(min=2),
    default=64,
    show_default=True,
    help="People to train on; half as many more to test on.",
)
@click.option("--images", type=click.IntRange(min=2), default=12, show_default=True, help="Images of each.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same faces.")
def demo_data(out: Path, identities: int, images: int, seed: int) -> None:
    """Paint generated faces, laid out as the public data sets."""
    from pipeline.demo.generate import write_demo_data

    write_demo_data(out, identities=identities, images=images, seed=seed)


@click.command("build-shards", short_help="Align faces into WebDataset tars with Parquet.")
@click.option(
    "--source",
    type=click.Choice(["vggface2", "qmul", "tinyface", "folder"]),
    default="vggface2",
    show_default=True,
    help="Layout of --root. qmul, tinyface: the training sets, for fine-tuning; not aligned, each image resized whole.",
)
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="Folder with the images. [default: $LRFR_DATA/VGGFace2, QMUL-SurvFace or TinyFace, by --source]",
)
@click.option(
    "--landmarks",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Landmark CSV; may be given several times. [default: found under --root]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for the shards. [default: $LRFR_DATA/shards, shards-qmul or shards-tinyface, by --source]",
)
@click.option(
    "--template",
    type=click.Choice(["seed", "arcface"]),
    help="Where the five points go: seed as the reference, arcface centred. [default: seed]",
)
@click.option(
    "--min-images",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Leave out identities with fewer images.",
)
@click.option(
    "--exclude", type=click.Path(path_type=Path), help="File of identities or identity/image to leave out, one a line."
)
@click.option(
    "--images-per-shard", type=click.IntRange(min=1), help="Size of a shard. [default: a 32nd of the set, 250 to 5000]"
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=lambda: len(os.sched_getaffinity(0)),
    show_default="all cores",
    help="Processes.",
)
@click.option(
    "--executor",
    type=click.Choice(["process", "serial"]),
    default="process",
    show_default=True,
    help="Where shards are built.",
)
@click.option("--retry-failed", is_flag=True, help="Build again the shards with missing or unreadable images.")
def build_shards(source: str, root: Path | None, out: Path | None, **options: Any) -> None:
    """Align faces, or resize them whole, and store them as WebDataset tars with Parquet metadata.

    Interrupted at any moment, the same command goes on where it stopped.
    """
    from pipeline.build.builder import build
    from pipeline.build.options import options_for
    from pipeline.executors import WorkerError
    from pipeline.sources.catalog import SOURCES

    layout = SOURCES[source]
    try:
        with interruptible(lambda: _KEPT):
            build(options_for(source, root=root or data(layout.dataset)(), out=out or data(layout.shards)(), **options))
    except WorkerError as error:
        raise CommandError(f"{error}; {_KEPT}") from None


@click.command(short_help="Check a shard set.")
@click.argument("shards", type=click.Path(path_type=Path), default=data("shards"))
@click.option("--full", is_flag=True, help="Read every byte and compare hashes.")
def verify(shards: Path, full: bool) -> None:
    """Check a shard set; names everything that is wrong and exits 1 if anything is."""
    from pipeline.progress import Progress
    from shards.schema import Manifest
    from shards.verify import verify as problems_of

    manifest = Manifest.read(shards)
    with Progress("verify", manifest.shards, "shards") as progress:
        problems = list(problems_of(shards, full=full, on_shard=progress.update))
    for problem in problems:
        click.echo(problem)
    if problems:
        raise CommandError(
            f"{shards}: {len(problems)} problem{'s' if len(problems) > 1 else ''}; restore the files, or delete the folder and build again"
        )
    click.echo(
        f"{shards}: sound; {manifest.images:,} images, {manifest.shards} shards{'' if full else ' (sizes and indexes; --full reads every byte)'}"
    )


@click.command(short_help="Print a shard set's figures, draw a contact sheet.")
@click.argument("shards", type=click.Path(path_type=Path), default=data("shards"))
@click.option("--out", type=click.Path(path_type=Path), help="Contact sheet PNG. [default: SHARDS/contact-sheet.png]")
def inspect(shards: Path, out: Path | None) -> None:
    """Print a shard set's figures and draw a contact sheet of what the network sees."""
    from pipeline.inspect import contact_sheet, figures

    click.echo(figures(shards))
    click.echo(f"contact sheet: {contact_sheet(shards, out or shards / 'contact-sheet.png')}")
