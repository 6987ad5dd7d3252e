"""Finds the landmarks of many images in worker processes, and writes their table. A killed run can be resumed."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.executors import Executor, unordered_map
from pipeline.landmarks.chunk import Chunk, LandmarkOptions, find_in_chunk, read_part
from pipeline.landmarks.model import SHA256, LandmarkerError
from pipeline.landmarks.table import write_table
from pipeline.progress import Progress
from pipeline.sources.watch import SourceWatch
from shards.errors import LockedError
from shards.files import digest, open_regular, remove_temporaries
from shards.locks import locked
from shards.messages import counted
from shards.schema import STATUS_OK

VERSION = 2  # of the points that `find_face` returns
_ACTIVITY = "finding landmarks"
MIN_CHUNK, MAX_CHUNK = 16, 256  # images a worker finishes before they are stored


def find_landmarks(
    names: Sequence[str],
    out: Path,
    options: LandmarkOptions,
    *,
    root: Path,
    workers: int = 1,
    cache: Path | None = None,
    watch: SourceWatch | None = None,
) -> Counter[str]:
    """Writes one row for each image, in the order of ``names``, whatever the number of workers.

    Args:
        names: paths below ``root``.
        out: the Parquet file, which appears only when it is complete.
        root: folder of the images; an empty path for names that are whole paths.
        workers: 1 for this process, otherwise the number of worker processes.
        cache: folder that keeps the rows for later calls. None: finished rows are kept beside ``out`` until the table
            is complete, so that another call can go on where this one was killed.
        watch: the folders whose loss ends the work. None: ``root``.

    Returns:
        The number of rows by status.

    Raises:
        LandmarkerError: the model is absent or another one, or LiteRT is not installed.
        LockedError: another process writes the same table.
        SourceError: ``root`` is gone.
        WorkerError: a worker process died or hangs.
    """
    options.networks()  # before anything is written
    metadata = {**_facts(options), "images": _names_digest(names)}
    statuses: Counter[str] = Counter()
    with _parts_folder(out, digest(_facts(options))[:16], cache) as folder:
        chunks = _chunks(names, folder, options, root, watch or SourceWatch([root]))
        with Progress("landmarks", len(names)) as progress:
            workers = min(workers, len(chunks))
            executor: Executor = "serial" if workers == 1 else "process"
            done = unordered_map(find_in_chunk, chunks, executor=executor, workers=workers)
            with contextlib.closing(done):
                for rows, stored in done:
                    progress.skip(rows) if stored else progress.update(rows)

        def parts() -> Iterator[pa.Table]:
            for chunk in chunks:
                table = read_part(chunk.part)
                if table is None:
                    raise LandmarkerError(f"{chunk.part}: damaged since it was written; run the same command again")
                for count in pc.value_counts(table["status"]).to_pylist():
                    statuses[count["values"]] += count["counts"]
                yield table

        write_table(out, parts(), metadata)
    return statuses


def is_table_of(path: Path, names: Sequence[str], options: LandmarkOptions) -> bool:
    """Returns True if ``path`` is a table that ``find_landmarks`` wrote about these images with these options."""
    try:
        with open_regular(path) as stream:
            metadata = pq.read_schema(stream).metadata or {}
    except (OSError, ValueError, pa.ArrowException):
        return False
    expected = {**_facts(options), "images": _names_digest(names)}
    versions = ("landmarks", "litert", "opencv")  # a set that was begun with other ones is finished with its table
    return all(metadata.get(key.encode()) == value.encode() for key, value in expected.items() if key not in versions)


def summary(statuses: Mapping[str, int], out: Path) -> str:
    """Says how many images have landmarks, and why others have none."""
    others = ", ".join(f"{count:,} {status}" for status, count in sorted(statuses.items()) if status != STATUS_OK)
    total = counted(sum(statuses.values()), "image")
    return f"landmarks of {statuses.get(STATUS_OK, 0):,} of {total}{f' ({others})' if others else ''}: {out}"


def _names_digest(names: Sequence[str]) -> str:
    return digest(list(map(ascii, names)))


def _facts(options: LandmarkOptions) -> dict[str, str]:
    """What determines the rows, as the table's metadata states it."""
    return {
        "landmarks": str(VERSION),
        "model": SHA256,
        "choose": options.choose,
        "max_pixels": str(options.max_pixels),
        "litert": importlib.metadata.version("ai-edge-litert"),
        "opencv": cv2.__version__,
    }


def _chunks(
    names: Sequence[str], folder: Path, options: LandmarkOptions, root: Path, watch: SourceWatch
) -> list[Chunk]:
    size = min(max(len(names) // 64, MIN_CHUNK), MAX_CHUNK)
    groups = [list(names[start : start + size]) for start in range(0, len(names), size)]
    return [
        Chunk(
            root=root,
            names=group,
            part=folder / f"{digest([ascii(os.path.realpath(root)), *map(ascii, group)])[:32]}.parquet",
            options=options,
            watch=watch,
        )
        for group in groups
    ]


@contextlib.contextmanager
def _parts_folder(out: Path, fingerprint: str, cache: Path | None) -> Iterator[Path]:
    """Yields the folder of finished chunks. Beside ``out`` it is locked, and deleted if the block succeeds."""
    if cache is not None:
        folder = cache / fingerprint
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    folder = out.with_name(f"{out.name}.{fingerprint}.unfinished")
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, _ACTIVITY):
        remove_temporaries(folder)
        yield folder
    ours = re.compile(re.escape(out.name) + r"\.[0-9a-f]{16}\.unfinished")
    for path in out.parent.iterdir():
        if ours.fullmatch(path.name) and path.is_dir() and not path.is_symlink():  # also of a run with other options
            with contextlib.suppress(LockedError), locked(path, _ACTIVITY):
                shutil.rmtree(path)
