"""Builds a shard set, or a part of one, or resumes it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator

from pipeline.build.exclusions import Exclusions, read_exclusions
from pipeline.build.job import Job, planned
from pipeline.build.messages import print_part, print_result
from pipeline.build.options import BuildOptions
from pipeline.build.parts import WHOLE, Part
from pipeline.sources.listing import shortened
from shards.arguments import check_argument
from shards.errors import LockedError, ShardError
from shards.locks import locked
from shards.messages import command, counted, print_stderr
from shards.schema import MANIFEST, Manifest, shard_file
from shards.store import naming_store

_ACTIVITY = "building shards"
END_S = 10.0  # patience with a part that found this one's last shard missing, and has only its last line to print
POLL_S = 0.1


def build(options: BuildOptions) -> Manifest:
    """Builds a shard set, or resumes one, and prints progress and counts to stderr.

    Raises:
        LandmarkError: a landmark table or the exclusion list cannot be read.
        LandmarkerError: the landmark model cannot be used.
        SourceError: the folder of the images contains none of them, or is gone.
        ShardError: ``out`` contains something else, or no image could be stored.
        LockedError: another process is building in ``out``.
        WorkerError: a worker process died or hangs; committed shards are kept.
        StoreError: the object store of ``options.store`` cannot be used; shards that it has are kept.
        TypeError: ``options`` is not a ``BuildOptions``.
    """
    _check_options(options)
    there = options.out.exists()
    exclusions = _begun(options)
    with _naming_store(options), locked(options.out, _ACTIVITY):
        try:
            job = planned(options, exclusions)
            records = job.committed(job.share, retry_failed=options.retry_failed)
            finished = len(records) == len(job.share) and job.is_published()
            if not finished:
                job.run(records)
                job.finish(records)
        except BaseException:
            if not there:
                with contextlib.suppress(OSError):  # it is not empty
                    options.out.rmdir()
            raise
        return _result(job, finished)


def build_part(options: BuildOptions, part: Part) -> Manifest | None:
    """Builds the shards of one part; the part that ends last makes the set's index and manifest.

    Parts may run at the same time, on machines that share the file system of ``out``, with the same options. The files
    are those of ``build``.

    Returns:
        The manifest, or None if shards of other parts are missing.

    Raises:
        LockedError: a process that is not a part is building in ``out``; or, into a store, one that builds this part.
        LandmarkError, SourceError, ShardError, WorkerError, TypeError: see ``build``.
    """
    check_argument(isinstance(part, Part), "part", part, "a Part, such as Part(1, 8)")
    if part == WHOLE:
        return build(options)
    _check_options(options)
    _check_landmarks(options)
    if options.store:  # a staging of its own: other parts may be at work on this machine
        options = dataclasses.replace(options, out=options.out / f"part-{part.number}-of-{part.count}")
    exclusions = _begun(options)
    with _naming_store(options), locked(options.out, _ACTIVITY, shared=not options.store) as has_locks:
        job = planned(options, exclusions, part)
        records = job.committed(job.share, retry_failed=options.retry_failed)
        if len(records) < len(job.share):
            job.run(records)
        missing = _missing(job)
        print_part(part, job.plan, missing)
        if missing and job.stored:
            job.stored.end()
    if missing:
        return None
    if not has_locks:
        print_stderr(f"{options.out}: no file locks there; when all parts have ended, run the same with --finish")
        return None
    patience = time.monotonic() + END_S
    while True:
        try:
            with _naming_store(options), locked(options.out, _ACTIVITY):
                return None if _missing(job) else _published(job)  # missing: --retry-failed of another part has begun
        except LockedError:
            if time.monotonic() >= patience:
                print_stderr("another part is still at work; the last one makes index and manifest")
                return None
        time.sleep(POLL_S)


def finish_build(options: BuildOptions) -> Manifest:
    """Makes index and manifest of a set whose parts have been built.

    Raises:
        ShardError: shards are missing.
        LockedError: another process is building in ``out``.
        LandmarkError, SourceError, TypeError: see ``build``.
    """
    _check_options(options)
    _check_landmarks(options)
    exclusions = _begun(options, made_here=options.store is not None)
    with _naming_store(options), locked(options.out, _ACTIVITY):
        job = planned(options, exclusions)
        if missing := _missing(job):
            names = shortened([shard_file(shard, "tar") for shard in missing])
            raise ShardError(
                f"{options.place}: {len(missing):,} of {counted(len(job.share), 'shard')} are missing ({names}); run the"
                " parts that build them, or the same command without --finish"
            )
        return _published(job)


def _check_options(options: object) -> None:
    """Raises: TypeError: they are no options of a build."""
    expected = "BuildOptions, such as options_for('vggface2', root=..., out=...)"
    check_argument(isinstance(options, BuildOptions), "options", options, expected)


def _begun(options: BuildOptions, *, made_here: bool = True) -> Exclusions | None:
    """Checks ``out`` and makes it; returns the exclusions.

    Args:
        made_here: False: ``out`` must be there.
    """
    exclusions = read_exclusions(options.exclude)
    if options.out.exists() and not options.out.is_dir():
        raise ShardError(f"{options.out}: is a file; choose a folder for --out")
    if options.out.is_symlink() and not options.out.exists():
        raise ShardError(f"{options.out}: a link to {os.readlink(options.out)}, which is not there; create that folder")
    if not made_here and not options.out.exists():
        raise ShardError(f"{options.out}: not found; --finish takes the --out of the parts")
    options.out.mkdir(parents=True, exist_ok=True)
    return exclusions


def _check_landmarks(options: BuildOptions) -> None:
    """Raises: ShardError: each part would search for all landmarks."""
    if options.landmark_model is not None:
        made = command("landmarks", options.root, "--out", f"{options.root}.parquet")
        raise ShardError(f"parts need a landmark table, not --landmarks auto; run: {made}")


def _missing(job: Job) -> list[int]:
    """The shards of the set that are not there."""
    shards = range(len(job.plan.shards))
    records = job.committed(shards)
    return [shard for shard in shards if shard not in records]


def _published(job: Job) -> Manifest:
    """Makes index and manifest of a set with all shards unless they are there; this process has locked the folder."""
    finished = job.is_published()
    if not finished:
        (job.options.out / MANIFEST).unlink(missing_ok=True)  # of an index that is not there
        job.finish(job.committed(range(len(job.plan.shards))))
    return _result(job, finished)


def _result(job: Job, finished: bool) -> Manifest:
    """Reads the manifest and prints the counts of the set."""
    manifest = Manifest.read(job.options.out)
    if job.stored and job.options.min_images > 1:
        job.stored.fetch_index()
    print_result(manifest, job.options, job.plan, finished=finished)
    if job.stored:
        job.stored.end()
    return manifest


@contextlib.contextmanager
def _naming_store(options: BuildOptions) -> Iterator[None]:
    """Errors of the staging, and of what was copied from the source's store, name the store."""
    with contextlib.ExitStack() as stack:
        if options.store:
            stack.enter_context(naming_store(options.out, options.store.url, ShardError, LockedError))
        if options.stored_root:
            stack.enter_context(options.stored_root.naming())
        yield
