"""``--landmarks auto``: the build finds the landmarks itself, and keeps their table beside the shards."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.build.fingerprint import check_out
from pipeline.build.options import BuildOptions
from pipeline.landmarks.chunk import LandmarkOptions
from pipeline.landmarks.run import find_landmarks, is_table_of, summary
from pipeline.sources.folders import find_images, report_left_out
from pipeline.sources.source import Source
from pipeline.sources.watch import SourceWatch
from shards.errors import ShardError
from shards.messages import print_stderr
from shards.schema import PLAN


def make_landmarks(options: BuildOptions, source: Source) -> None:
    """Writes the table of ``options.landmarks`` unless an earlier run of this build has done so.

    Raises:
        LandmarkerError: the model is absent or another one, or LiteRT is not installed.
        SourceError: there are no images, or their folder is gone.
        ShardError: ``out`` contains something else, or other images than those below ``root`` now.
    """
    assert options.landmark_model is not None
    check_out(options.out)
    (table,) = options.landmarks
    found = find_images(source.image_folders(options.root, **options.source_arguments(source)))
    names = [os.path.relpath(path, options.root) for path in found.paths]
    finder = LandmarkOptions(model=options.landmark_model, max_pixels=options.max_pixels)
    if is_table_of(table, names, finder):
        print_stderr(f"{table.name}: found before, used again")
        return
    if table.exists() and (options.out / PLAN).exists():
        raise ShardError(
            f"{table}: of other images than {options.root} has now, or of other options; choose another --out, or"
            " delete this folder first"
        )
    report_left_out(found)
    workers = 1 if options.executor == "serial" else options.workers or len(os.sched_getaffinity(0))
    watch = SourceWatch(source.watched(options.root))
    statuses = find_landmarks(names, table, finder, root=options.root, workers=workers, watch=watch)
    print_stderr(summary(statuses, Path(table.name)))
