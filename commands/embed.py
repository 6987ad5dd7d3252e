"""embed: embeds images into a Parquet file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from commands.group import CommandError
from commands.landmark_finder import landmark_finder
from commands.network import open_engine
from commands.options import PATH, check_alignment, engine_options, is_auto, landmarks_option
from commands.outputs import PARQUET_FILE, check_outputs
from shards.messages import counted, print_stderr

if TYPE_CHECKING:
    from benchmarks.engine.identities import Rule, Templates, Weights


@click.command(short_help="Write the embeddings of images to a Parquet file.")
@click.argument("images", type=PATH, nargs=-1, required=True)
@click.option("--out", type=PARQUET_FILE, required=True, help="Parquet file to write.")
@landmarks_option("Landmark table to align by; may be repeated. [default: images are aligned crops or tight faces]")
@click.option(
    "--aligned",
    help="The images are aligned crops of this template: arcface, seed, or a TOML file with name, size and points; they"
    " are transformed to the network's template. [default: the network's template]",
)
@click.option("--down", type=click.IntRange(min=1), help="Degrade each image to this many px and back.")
@click.option(
    "--identity",
    type=click.Choice(["folder", "prefix"]),
    help="Add a column identity: the name of the image's folder, or its file name up to the first underscore.",
)
@click.option(
    "--group",
    type=click.Choice(["folder", "prefix"]),
    help="Write one row, a template, for each identity: the mean embedding of its images.",
)
@click.option(
    "--weights",
    type=click.Choice(["equal", "norm"]),
    default="equal",
    help="Weights of the images in a template of --group; norm is the norm of the network's output.",
)
@engine_options
def embed(
    images: tuple[Path, ...],
    out: Path,
    landmarks: tuple[Path, ...],
    aligned: str | None,
    down: int | None,
    identity: Rule | None,
    group: Rule | None,
    weights: Weights,
    **options: Any,
) -> None:
    """Write the embeddings of image files, and of all images in folders, to a Parquet file.

    Columns: path, embedding (float32, unit length), norm (of the network's output), status, error_message. An unusable
    image is a row without embedding; the exit code is 0 if any image could be used. The metadata of the file identifies the
    network and its preprocessing.

    \b
    Example:
      lrfr embed photos --landmarks auto --network best.pt --out faces.parquet
    """
    from benchmarks.engine.identities import ImageRows, Templates
    from benchmarks.engine.parquet_writer import embed_images
    from pipeline.images.sizes import photograph_warning
    from pipeline.sources.folders import find_images, report_left_out
    from pipeline.sources.templates import crop_template

    check_alignment(landmarks, aligned)
    check_outputs({"--out": out}, landmarks)
    if group and identity:
        raise click.UsageError("--identity and --group: templates have a column identity anyway; leave out --identity")
    if weights != "equal" and not group:
        raise click.UsageError("--weights: only templates have weights; add --group")
    templates = Templates(group, weights) if group else None
    template = None if aligned is None else crop_template(aligned)
    found = find_images(images)
    report_left_out(found)
    paths = found.paths
    if not (landmarks or template) and (warning := photograph_warning(paths)):
        print_stderr(warning)
    folders = {path if path.is_dir() else path.parent for path in images}
    finder = landmark_finder(folders, no_cache=options["no_cache"], max_pixels=options["max_pixels"])
    with open_engine(**options) as (engine, network, facts), finder as found_in:
        if down is not None and down > engine.spec.size:
            raise CommandError(f"--down {down}: choose at most the network's input size, {engine.spec.size} px")
        tables = [found_in(paths)] if is_auto(landmarks) else landmarks
        kept = [name for name in ("precision", "flip") if name in facts]
        metadata = network.metadata() | {name: str(facts[name]) for name in kept}
        embedded = embed_images(
            engine,
            paths,
            out,
            landmarks=tables,
            aligned=template,
            down=down,
            rows=templates or ImageRows(identity),
            metadata=metadata,
            folders=folders,
        )
    _report(out, embedded, len(paths), templates)


def _report(out: Path, embedded: int, total: int, templates: Templates | None) -> None:
    """Says how many images were embedded. Raises: CommandError: no image was."""
    if embedded < total:
        columns = "columns status and error_message" if templates is None else "column unusable"
        print_stderr(f"unusable: {total - embedded:,} of {counted(total, 'image')}; see the {columns}")
    if not embedded:
        raise CommandError(f"{out}: no image could be embedded")
    into = f" in {counted(templates.usable, 'template')}" if templates else ""
    click.echo(f"embedded {embedded:,} of {counted(total, 'image')}{into}: {out}")
