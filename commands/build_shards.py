"""build-shards: builds a shard set from photographs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from commands.group import CommandError, interruptible
from commands.options import (
    PATH,
    STORE_PATH,
    data,
    is_auto,
    landmark_model,
    landmarks_option,
    max_pixels_option,
    staging,
)
from pipeline.sources.catalog import SOURCES, find_source
from shards.errors import ShardError

if TYPE_CHECKING:
    from pipeline.build import BuildOptions
    from pipeline.build.parts import Part
    from pipeline.sources.source import Source
    from shards.store import Store

_HELP = "\n".join(
    [
        "Align faces, or resize whole images, and store them as WebDataset tars with Parquet metadata.\n",
        "An interrupted build continues when the same command is run again.\n",
        "\b",
        "Sources, the layouts of --root:",
        *(f"  {name:<11} {text}" for name, (_, text) in SOURCES.items()),
        "\n\b",
        "Examples:",
        "  lrfr build-shards --root VGGFace2 --out shards",
        "  lrfr build-shards --source folder --root photos --landmarks auto --template arcface --out shards",
        "  lrfr build-shards --source recordio --root faces_emore --aligned arcface --out shards",
    ]
)
_KEPT = "finished shards are kept: run the same command to continue"


def _part(context: click.Context, option: click.Parameter, text: str | None) -> Part | None:
    from pipeline.build.parts import parse_part

    try:
        return None if text is None else parse_part(text)
    except ShardError as error:
        raise click.BadParameter(str(error)) from None


@click.command("build-shards", help=_HELP, short_help="Align faces into WebDataset tars with Parquet metadata.")
@click.option(
    "--source",
    type=click.Choice(list(SOURCES)),
    default="vggface2",
    help="Layout of --root, see above.",
)
@click.option(
    "--root",
    type=STORE_PATH,
    help="Folder with the images, or URL of an object store. [default: by --source, such as $LRFR_DATA/VGGFace2]",
)
@landmarks_option("Landmark table, CSV or Parquet; may be repeated. [default: found under --root]")
@click.option(
    "--list",
    "lists",
    type=PATH,
    multiple=True,
    help="List of images below --root and their identities (CSV, JSON lines, Parquet), for --source list; may be"
    " repeated.",
)
@click.option(
    "--split",
    help="Part of the data set, for --source list (column split), huggingface (folder) and webdataset (start of the names"
    " of tars). [default: all; of huggingface the folder train]",
)
@click.option(
    "--out",
    type=STORE_PATH,
    help="Folder for the shards, or URL of an object store. [default: by --source, such as $LRFR_DATA/shards]",
)
@click.option(
    "--aligned",
    help="The images are aligned crops of this template: arcface (most published 112 px crops), seed, or a TOML file with"
    " name, size and points. They are stored as they are, unless --template or --size differs.",
)
@click.option(
    "--template",
    type=click.Choice(["seed", "arcface", "none"]),
    help="Position of the five points: seed, as in the reference, or arcface, which is centred; none: resize images whole."
    " Required for --source crops. [default: that of --aligned; or seed; none for qmul and tinyface]",
)
@click.option(
    "--size",
    type=click.IntRange(1, 1024),
    help="Side of the stored crops, px. [default: that of --aligned, 112 for arcface and seed; or 128]",
)
@click.option("--min-images", type=click.IntRange(min=1), default=1, help="Leave out identities with fewer images.")
@click.option("--exclude", type=PATH, help="File with identities or identity/image to leave out, one per line.")
@click.option(
    "--images-per-shard", type=click.IntRange(min=1), help="Size of a shard. [default: 1/32 of the set, 250 to 5000]"
)
@click.option(
    "--group",
    type=click.IntRange(min=2),
    metavar="K",
    help="Keep K to 2K-1 images of an identity together in a shard (all, if it has fewer), for train --order sequential."
    " [default: each image goes to a random shard]",
)
@max_pixels_option
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    show_default="all cores; with ray, those of the cluster",
    help="Number of worker processes.",
)
@click.option(
    "--executor",
    type=click.Choice(["process", "serial", "ray"]),
    default="process",
    help="Build shards in worker processes, one after another in this process, or on a Ray cluster (extra [ray]).",
)
@click.option(
    "--ray-address",
    metavar="HOST:PORT",
    help="The Ray cluster of --executor ray; auto: the one that runs on this machine. [default: $RAY_ADDRESS; or one is"
    " started on this machine]",
)
@click.option("--retry-failed", is_flag=True, help="Build shards with missing or unreadable images again.")
@click.option(
    "--part",
    metavar="I/N",
    callback=_part,
    help="Build only every N-th shard, from the I-th on: N such commands, on machines that share --out, build the set. The"
    " last one to end makes index and manifest.",
)
@click.option("--finish", is_flag=True, help="Build nothing; make index and manifest if all shards are there.")
def build_shards(
    source: str, root: Path | Store | None, out: Path | Store | None, part: Part | None, finish: bool, **options: Any
) -> None:
    """Builds a shard set, see ``_HELP``."""
    from pipeline.build import build, build_part, finish_build
    from pipeline.executors import WorkerError

    if finish and (part or options["retry_failed"]):
        raise click.UsageError(f"--finish builds nothing; leave out {'--part' if part else '--retry-failed'}")
    if options["ray_address"] and options["executor"] != "ray":
        raise click.UsageError("--ray-address is for --executor ray")
    if (options["workers"] or 1) > 1 and options["executor"] == "serial":
        raise click.UsageError("--executor serial builds in one process; leave out --workers, or --executor")
    if options["executor"] == "ray":
        options["ray_address"] = options["ray_address"] or os.environ.get("RAY_ADDRESS")
    layout = find_source(source)
    if is_auto(options["landmarks"]):
        if not isinstance(root, Path | None):
            raise click.UsageError(f"--landmarks auto reads a folder of this machine: copy or mount {root}")
        options |= {"landmarks": (), "landmark_model": landmark_model()}
    try:
        with interruptible(lambda: _KEPT):
            root, out = root or data(layout.dataset)(), out or data(layout.shards)()
            if not isinstance(out, Path):
                options["store"], out = out, staging(out)
            chosen = _options(layout, root, out=out, **options)
            if part:
                build_part(chosen, part)
            else:
                (finish_build if finish else build)(chosen)
    except WorkerError as error:
        raise CommandError(f"{error}; {_KEPT}") from None


def _options(source: Source, root: Path | Store, **options: Any) -> BuildOptions:
    """The options of a build; lists a root that is in a store."""
    from pipeline.build import options_for

    if isinstance(root, Path):
        return options_for(source.name, root=root, **options)
    from pipeline.sources.stored_root import StoredRoot

    stored = StoredRoot(root, staging(root))
    stored.begin(source)
    with stored.naming():
        return options_for(source.name, root=stored.folder, stored_root=stored, **options)
