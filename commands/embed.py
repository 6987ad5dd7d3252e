"""embed: from images to a table of embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from commands.group import CommandError
from commands.network import open_engine
from commands.options import engine_options


@click.command(short_help="Embed images of your own into a Parquet file.")
@click.argument("images", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The Parquet file to write."
)
@click.option(
    "--landmarks",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Landmark CSV to align by; may be given several times. [default: images are aligned crops or tight faces]",
)
@click.option("--down", type=click.IntRange(min=1), help="Degrade each image to this many px and back.")
@engine_options
def embed(images: tuple[Path, ...], out: Path, landmarks: tuple[Path, ...], down: int | None, **options: Any) -> None:
    """Embed images, and the images in folders, into a Parquet file.

    Its columns are path, embedding (512 float32 of unit length), norm (the length that the network gave it), status
    and error_message. An image that cannot be used is a row without embedding; the exit code is 0 all the same, and
    a line on stderr says how many there are. The file's metadata name the network and its preprocessing.
    """
    from benchmarks.engine.parquet_writer import embed_images, find_images

    paths = find_images(images)
    with open_engine(**options) as (engine, network, facts):
        size = engine.spec.size
        if down is not None and down > size:
            raise CommandError(f"--down {down}: the network sees {size} px; choose at most {size}")
        metadata = {
            **network.metadata(),
            "precision": facts["precision"],
            "alignment": "landmarks" if landmarks else "none",
            "down": str(down or ""),
        }
        embedded = embed_images(engine, paths, out, landmarks=landmarks, down=down, metadata=metadata)
    if embedded < len(paths):
        click.echo(
            f"{len(paths) - embedded:,} of {len(paths):,} images could not be used; status and error_message say why",
            err=True,
        )
    click.echo(f"embedded {embedded:,} of {len(paths):,} images: {out}")
