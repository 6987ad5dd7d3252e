"""``--landmarks auto`` of the commands that embed images."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from commands.options import data, landmark_model
from shards.messages import print_stderr


@contextlib.contextmanager
def landmark_finder(
    folders: Iterable[Path], *, no_cache: bool, max_pixels: int
) -> Iterator[Callable[[Sequence[str | Path]], Path]]:
    """Yields a function that finds the landmarks of some images and returns their table, which is kept in the cache.

    Args:
        folders: of the images; it is an error if one is gone before the end.
    """
    from pipeline.landmarks.chunk import LandmarkOptions
    from pipeline.landmarks.run import find_landmarks, summary
    from pipeline.sources.watch import SourceWatch
    from shards.files import digest

    watch = SourceWatch(folders)
    options = LandmarkOptions(model=landmark_model(), max_pixels=max_pixels)
    workers = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() if no_cache else contextlib.nullcontext(data("cache", "landmarks")()) as folder:

        def find(paths: Sequence[str | Path]) -> Path:
            names = [os.fspath(path) for path in paths]
            table = Path(folder) / f"{digest([os.getcwd(), *map(ascii, names)])[:16]}.parquet"
            cache = Path(folder) / "parts"
            statuses = find_landmarks(names, table, options, root=Path(), workers=workers, cache=cache, watch=watch)
            print_stderr(summary(statuses, table))
            return table

        yield find
