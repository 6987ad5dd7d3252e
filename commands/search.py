"""search: finds the most similar gallery images of each probe."""

from __future__ import annotations

from pathlib import Path

import click

from commands.group import interruptible
from commands.options import PATH
from commands.outputs import PARQUET_FILE, OutputPath, check_outputs
from shards.messages import print_stderr


@click.command(short_help="Find the most similar gallery images for each probe image.")
@click.argument("gallery", type=PATH)
@click.argument("probes", type=PATH)
@click.option("--out", type=PARQUET_FILE, required=True, help="Parquet file to write: a row for each match.")
@click.option(
    "--csv",
    "csv_file",
    type=OutputPath(kind="a CSV file of matches", starts=(b'"probe","probe_identity",',)),
    help="Also write the rows as a CSV file, for a spreadsheet.",
)
@click.option("--top", type=click.IntRange(min=1, max=1000), default=10, help="Matches of each probe.")
@click.option("--calibration", type=PATH, help="File of calibrate: add likelihood ratios with their intervals.")
@click.option(
    "--index",
    type=click.Choice(["exact", "pq"]),
    default="exact",
    help="exact compares all images; pq searches compressed embeddings with FAISS first, faster for many probes.",
)
def search(
    gallery: Path,
    probes: Path,
    out: Path,
    csv_file: Path | None,
    top: int,
    calibration: Path | None,
    index: str,
) -> None:
    """Rank the images of GALLERY by similarity for each image of PROBES; both are files of embed.

    Columns: probe, probe_identity, rank, gallery, identity, score (cosine), log10_lr with log10_lr_low and log10_lr_high,
    lr_bounded, status, error_message. A probe without embedding is a row with the reason. A probe is not compared with
    a gallery row of the same path.
    """
    from benchmarks.search.calibration import read_calibration
    from benchmarks.search.matches import write_csv
    from benchmarks.search.run import search_tables
    from benchmarks.search.summary import search_lines, search_notes

    check_outputs({"--out": out, "--csv": csv_file}, [gallery, probes, *([calibration] if calibration else [])])
    with interruptible():
        ratios = None if calibration is None else read_calibration(calibration)
        summary = search_tables(gallery, probes, out, top=top, approximate=index == "pq", calibration=ratios)
        if csv_file:
            write_csv(csv_file, out)
    for line in search_notes(summary):
        print_stderr(line)
    for line in search_lines(summary, ratios, out):
        click.echo(line)
