"""landmarks: finds the five points of every face in a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from commands.group import CommandError, interruptible
from commands.options import PATH, LocalPath, landmark_model, max_pixels_option, workers_option
from commands.outputs import PARQUET_FILE, OutputPath, check_outputs
from shards.messages import counted, print_stderr

_KEPT = "finished images are kept: run the same command to continue"


@click.command(short_help="Find five landmarks of a face in every image of a folder.")
@click.argument("root", type=LocalPath(exists=True, file_okay=False))
@click.option("--out", type=PARQUET_FILE, required=True, help="Parquet file to write, one row an image.")
@click.option(
    "--csv",
    "csv_file",
    type=OutputPath(kind="a landmark CSV", starts=(b"NAME_ID,",)),
    help="Also write the points of the found faces as a CSV file in VGGFace2's form.",
)
@click.option(
    "--model",
    type=PATH,
    help="MediaPipe's face_landmarker.task. [default: $LRFR_DATA/models/face_landmarker.task, where fetch landmarker"
    " puts it]",
)
@click.option(
    "--choose",
    type=click.Choice(["largest", "central", "highest-score"]),
    default="largest",
    help="Which of several faces in an image to take.",
)
@max_pixels_option
@workers_option
def landmarks(root: Path, out: Path, csv_file: Path | None, model: Path | None, workers: int, **options: Any) -> None:
    """Find eyes, nose and mouth corners of one face in every image below ROOT, with MediaPipe's networks.

    --landmarks of build-shards, bench and embed takes the file. An image that is unusable, or shows no face, is a row with
    status and reason. An interrupted run continues when the same command is run again.

    \b
    Example:
      lrfr fetch landmarker
      lrfr landmarks photos --out photos.parquet
    """
    from pipeline.executors import WorkerError
    from pipeline.landmarks.chunk import LandmarkOptions
    from pipeline.landmarks.run import find_landmarks, summary
    from pipeline.landmarks.table import write_csv
    from pipeline.sources.folders import find_images, report_left_out
    from shards.schema import STATUS_OK

    if out.suffix.lower() == ".csv":
        raise click.UsageError(f"--out {out}: a Parquet file is written; --csv also writes a CSV file")
    check_outputs({"--out": out, "--csv": csv_file})
    found = find_images([root])
    report_left_out(found)
    names = [os.path.relpath(path, root) for path in found.paths]
    model = model or landmark_model()
    try:
        with interruptible(lambda: _KEPT):
            statuses = find_landmarks(names, out, LandmarkOptions(model=model, **options), root=root, workers=workers)
            left_out = write_csv(csv_file, out) if csv_file else 0
    except WorkerError as error:
        raise CommandError(f"{error}; {_KEPT}") from None
    if left_out:
        print_stderr(
            f"{csv_file}: {counted(left_out, 'name')} with a line break or of several images left out; {out} has them"
        )
    click.echo(summary(statuses, out))
    if not statuses[STATUS_OK]:
        raise CommandError(f"{out}: no face found in {counted(len(names), 'image')}")
