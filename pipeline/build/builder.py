"""Builds a shard set, or resumes one."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.build.exclusions import read_exclusions
from pipeline.build.options import BuildOptions, check_plan, fingerprint_parts, library_versions
from pipeline.build.own_landmarks import make_landmarks
from pipeline.build.plan import Plan, make_plan
from pipeline.build.worker import RETRIED, ShardTask, run_shard
from pipeline.executors import unordered_map
from pipeline.progress import Progress
from pipeline.sources.catalog import find_source
from pipeline.sources.landmark_order import report_order
from pipeline.sources.landmark_scale import scale_warning, spread
from pipeline.sources.listing import NAMED, shortened
from pipeline.sources.source import Reader, Rows, SourceError, is_present
from pipeline.sources.watch import SourceWatch
from shards.arguments import check_argument
from shards.errors import ShardError
from shards.files import digest, locked, quick_digest, remove_temporaries, write_record
from shards.finish import describe, finish_set
from shards.messages import counted, print_stderr
from shards.schema import DONE_SUFFIX, INDEX, INDEX_SCHEMA, MANIFEST, PLAN, ROW_SCHEMA, Manifest, shard_file
from shards.tables import read_table
from shards.writer import done_record


def build(options: BuildOptions) -> Manifest:
    """Builds a shard set, or resumes one, and prints progress and counts to stderr.

    Raises:
        LandmarkError: a landmark table or the exclusion list cannot be read.
        LandmarkerError: the landmark model cannot be used.
        SourceError: the folder of the images contains none of them, or is gone.
        ShardError: ``out`` contains something else, or no image could be stored.
        LockedError: another process is building in ``out``.
        WorkerError: a worker process died or hangs; committed shards are kept.
        TypeError: ``options`` are none.
    """
    expected = "BuildOptions, such as options_for('vggface2', root=..., out=...)"
    check_argument(isinstance(options, BuildOptions), "options", options, expected)
    exclusions = read_exclusions(options.exclude)
    if options.out.exists() and not options.out.is_dir():
        raise ShardError(f"{options.out}: is a file; choose a folder for --out")
    if options.out.is_symlink() and not options.out.exists():
        raise ShardError(f"{options.out}: a link to {os.readlink(options.out)}, which is not there; create that folder")
    options.out.mkdir(parents=True, exist_ok=True)
    with locked(options.out, "building shards"):
        source = find_source(options.source)
        watch = SourceWatch(source.watched(options.root))
        if options.landmark_model is not None:
            make_landmarks(options, source)
        rows = source.rows(
            options.root, options.landmarks, aligning=options.aligning, **options.source_arguments(source)
        )
        parts = fingerprint_parts(options, rows, exclusions)
        fingerprint = digest(parts)
        check_plan(options, parts)
        plan = make_plan(
            rows,
            exclude=exclusions.entries if exclusions else (),
            min_images=options.min_images,
            images_per_shard=options.images_per_shard,
        )
        _print_plan(plan, options, rows)
        if len(plan.rejected) == len(plan.keys):
            reasons = Counter(status for status, _ in plan.rejected.values())
            raise ShardError(f"{options.root}: no image is left to store ({describe(reasons)}); nothing was written")
        records = _committed(options, len(plan.shards), fingerprint)
        finished = len(records) == len(plan.shards) and _is_published(options.out)
        if not finished:
            _check_present(options.root, plan, rows.reader)
            _unpublish(options.out, len(plan.shards), records)
            write_record(options.out / PLAN, {"root": str(options.root.resolve()), "parts": parts})
            _run(options, plan, rows.reader, watch, fingerprint, records)
            _finish(options, plan, fingerprint, [records[shard] for shard in range(len(plan.shards))])
        manifest = Manifest.read(options.out)
    _print_result(manifest, options, finished)
    _print_small_identities(plan, options)
    return manifest


def _finish(options: BuildOptions, plan: Plan, fingerprint: str, records: list[dict[str, Any]]) -> None:
    finish_set(
        options.out,
        records,
        fingerprint=fingerprint,
        source=options.source,
        identities=plan.identity_count,
        preprocessing=options.preprocessing.to_dict(),
        versions=library_versions(plan.points is not None),
    )


def _check_present(root: Path, plan: Plan, reader: Reader) -> None:
    """Looks up one image of each identity until one is found: a disk that is not mounted is an empty folder.

    Images with a place have just been seen.

    Raises:
        SourceError: none is found.
    """
    if plan.places is not None:
        return
    stored = np.ones(len(plan.keys), bool)
    stored[list(plan.rejected)] = False
    rows = np.flatnonzero(stored)
    codes = plan.identities.indices.to_numpy()[rows]
    keys = plan.keys.take(rows[np.unique(codes, return_index=True)[1]]).to_pylist()
    if not any(is_present(reader, key) for key in keys):
        raise SourceError(
            f"{root}: holds no image of {counted(len(keys), 'identity')} looked up, such as {keys[0]};"
            " check --root, and whether its disk is mounted"
        )


def _committed(options: BuildOptions, shards: int, fingerprint: str) -> dict[int, dict[str, Any]]:
    """The done records of the shards that need not be built again."""
    found = ((shard, done_record(options.out, shard, fingerprint)) for shard in range(shards))
    return {
        shard: record
        for shard, record in found
        if record and not (options.retry_failed and any(map(record["statuses"].get, RETRIED)))
    }


def _run(
    options: BuildOptions,
    plan: Plan,
    reader: Reader,
    watch: SourceWatch,
    fingerprint: str,
    records: dict[int, dict[str, Any]],
) -> None:
    """Builds the shards that ``records`` lacks and adds their done records to it."""
    todo = [shard for shard in range(len(plan.shards)) if shard not in records]
    with Progress("build-shards", len(plan.keys)) as progress:
        progress.skip(sum(record["rows"] for record in records.values()))
        tasks = _tasks(options, plan, reader, watch, fingerprint, todo)
        done = unordered_map(run_shard, tasks, executor=options.executor, workers=options.workers)
        try:
            with contextlib.closing(done):  # kills the workers before their files are removed
                for number, record in enumerate(done):
                    records[record["shard"]] = record
                    progress.update(record["rows"])
                    if (
                        number == 0
                        and plan.points is not None
                        and (warning := _scale_warning(options, record["shard"]))
                    ):
                        progress.tell(warning)
        finally:
            remove_temporaries(options.out)


def _scale_warning(options: BuildOptions, shard: int) -> str | None:
    """Says that the points of a committed shard do not fit the sizes of its images."""
    columns = ("key", "landmarks", "width", "height")
    rows = read_table(options.out / shard_file(shard, "parquet"), pa.schema(map(ROW_SCHEMA.field, columns)))
    seen = rows.filter(rows["width"].is_valid()).to_pylist()
    tried = [seen[number] for number in spread(len(seen))]
    sized = [
        (row["key"], np.reshape(row["landmarks"], (-1, 2)).tolist(), (row["width"], row["height"])) for row in tried
    ]
    warning = scale_warning(sized)
    return warning and f"{', '.join(path.name for path in options.landmarks) or options.root.name}: {warning}"


def _tasks(
    options: BuildOptions, plan: Plan, reader: Reader, watch: SourceWatch, fingerprint: str, shards: list[int]
) -> Iterator[ShardTask]:
    for shard in shards:
        rows = plan.shards[shard]
        yield ShardTask(
            shard=shard,
            options=options,
            fingerprint=fingerprint,
            keys=plan.keys.take(rows).to_pylist(),
            places=None if plan.places is None else plan.places.take(rows).to_pylist(),
            reader=reader,
            identities=plan.identities.take(rows).to_pylist(),
            labels=plan.labels[rows].tolist(),
            points=None if plan.points is None else plan.points[rows],
            rejected={
                position: plan.rejected[row] for position, row in enumerate(rows.tolist()) if row in plan.rejected
            },
            watch=watch,
        )


def _is_published(out: Path) -> bool:
    """Returns True if index and manifest exist and belong together."""
    try:
        return (out / INDEX).is_file() and quick_digest(out / INDEX) == Manifest.read(out).index_digest
    except (ShardError, FileNotFoundError):
        return False


def _unpublish(out: Path, shards: int, keep: dict[int, dict[str, Any]]) -> None:
    """Deletes manifest, then index and outdated done records, so that a set never looks finished while shards change."""
    remove_temporaries(out)
    for name in (MANIFEST, INDEX):
        (out / name).unlink(missing_ok=True)
    for shard in range(shards):
        if shard not in keep:
            (out / shard_file(shard, DONE_SUFFIX)).unlink(missing_ok=True)


def _print_plan(plan: Plan, options: BuildOptions, rows: Rows) -> None:
    names = ", ".join(path.name for path in options.landmarks) or options.root.name
    print_stderr(
        f"{counted(len(plan.keys), 'row')} of {names}: {counted(len(plan.keys) - len(plan.rejected), 'image')} of"
        f" {counted(plan.identity_count, 'identity')} to store"
    )
    if rows.points is not None:
        report_order(rows.points, names)
    if rows.others:
        print_stderr(f"{names}: ignored {counted(len(rows.others), 'other entry')} ({shortened(rows.others)})")
    if options.exclude:
        removed = sum(status == "excluded" for status, _ in plan.rejected.values())
        unmatched = plan.unmatched_exclusions
        tail = f"; {counted(len(unmatched), 'entry')} without a match ({shortened(unmatched)})" if unmatched else ""
        print_stderr(f"{options.exclude.name}: removed {counted(removed, 'image')}{tail}")


def _print_result(manifest: Manifest, options: BuildOptions, finished: bool) -> None:
    state = "already complete, nothing to do" if finished else "done"
    print_stderr(
        f"{state}: {counted(manifest.images, 'image')} of {counted(manifest.identities, 'identity')}"
        f" in {counted(manifest.shards, 'shard')} at {options.out}"
    )
    if manifest.empty_identities:
        print_stderr(f"{counted(manifest.empty_identities, 'identity')} lost all images; labels stay the same")
    print_stderr(f"rejected: {describe(manifest.statuses)}")


def _print_small_identities(plan: Plan, options: BuildOptions) -> None:
    """Names identities that fell below the minimum, because it is compared before images are opened."""
    if options.min_images == 1:
        return
    labels = read_table(options.out / INDEX, pa.schema([INDEX_SCHEMA.field("label")]))["label"].to_numpy()
    counts = np.bincount(labels, minlength=plan.identity_count)
    small = np.flatnonzero(counts < options.min_images).tolist()
    if small:
        rows = [int(np.argmax(plan.labels == label)) for label in small[:NAMED]]
        found = [f"{plan.identities[row]}: {counts[label]}" for row, label in zip(rows, small, strict=False)]
        print_stderr(
            f"--min-images {options.min_images}: {counted(len(small), 'identity')} fell below it, because images were"
            f" unusable ({', '.join(found)}{', ...' if len(small) > NAMED else ''}); leave out by --exclude what you do"
            " not want"
        )
