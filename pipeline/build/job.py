"""A planned build: finds the shards that are there, builds the others, and finishes the set."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.build.exclusions import Exclusions
from pipeline.build.fingerprint import check_plan, fingerprint_parts, library_versions
from pipeline.build.messages import print_plan
from pipeline.build.options import BuildOptions
from pipeline.build.own_landmarks import make_landmarks
from pipeline.build.parts import WHOLE, Part
from pipeline.build.plan import Plan, make_plan
from pipeline.build.stored_build import StoredBuild
from pipeline.build.worker import RETRIED, ShardTask, run_shard
from pipeline.executors import unordered_map
from pipeline.progress import Progress
from pipeline.sources.catalog import find_source
from pipeline.sources.source import Reader, SourceError, is_present
from pipeline.sources.watch import SourceWatch
from pipeline.tables.landmark_scale import scale_warning, spread
from shards.errors import ShardError
from shards.files import digest, quick_digest, remove_temporaries, write_record
from shards.finish import describe, finish_set
from shards.messages import counted
from shards.schema import DATA_SUFFIXES, DONE_SUFFIX, INDEX, MANIFEST, PLAN, ROW_SCHEMA, Manifest, shard_file
from shards.tables import read_table
from shards.writer import done_record

Records = dict[int, dict[str, Any]]
"""Done records by shard."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A planned build.

    Attributes:
        reader: reads the source images.
        watch: notices that their folder is gone.
        parts: everything that determines the stored bytes, of which ``fingerprint`` is the digest.
        part: what this process builds.
        stored: the object store that the set is built into, if any; then ``options.out`` is the staging.
    """

    options: BuildOptions
    plan: Plan
    reader: Reader
    watch: SourceWatch
    parts: dict[str, Any]
    fingerprint: str
    part: Part
    stored: StoredBuild | None

    @property
    def share(self) -> range:
        """The shards that this process builds."""
        return self.part.share(len(self.plan.shards))

    def committed(self, shards: Sequence[int], *, retry_failed: bool = False) -> Records:
        """The done records of the ``shards`` that need not be built again.

        Args:
            retry_failed: those with missing or unreadable images do.
        """
        found: Iterable[tuple[int, dict[str, Any] | None]]
        if self.stored:
            found = self.stored.records(shards, self.fingerprint)
        else:
            out = self.options.out
            # one listing: another machine's new files are not seen on NFS until the folder is opened again
            names = set(os.listdir(out))
            found = ((shard, done_record(out, shard, self.fingerprint)) for shard in shards if _done(shard) in names)
        return {
            shard: record
            for shard, record in found
            if record and not (retry_failed and any(map(record["statuses"].get, RETRIED)))
        }

    def is_published(self) -> bool:
        """Returns True if index and manifest exist and belong together."""
        if self.stored:
            return self.stored.is_published()
        out = self.options.out
        try:
            return (out / INDEX).is_file() and quick_digest(out / INDEX) == Manifest.read(out).index_digest
        except (ShardError, FileNotFoundError):
            return False

    def run(self, records: Records) -> None:
        """Builds the shards of this process that ``records`` lacks and adds their done records to it.

        Raises:
            SourceError: no image is there.
            ShardError: a part with other options has begun in ``out``.
        """
        self._check_present()
        self._unpublish(records)
        record = {"root": self.options.origin, "parts": self.parts}
        write_record(self.options.out / PLAN, record, replace=self.part == WHOLE)
        if self.stored:
            self.stored.share_plan()
        check_plan(self.options, self.parts, alone=self.part == WHOLE)  # that of another part may have come first
        with Progress("build-shards", sum(len(self.plan.shards[shard]) for shard in self.share)) as progress:
            progress.skip(sum(record["rows"] for record in records.values()))
            done = unordered_map(
                run_shard,
                self.tasks(records),
                executor=self.options.executor,
                workers=self.options.workers,
                ray_address=self.options.ray_address,
            )
            try:
                with contextlib.closing(done):  # kills the workers before their files are removed
                    self._collect(done, records, progress)
            finally:
                self._remove_temporaries()

    def _collect(self, done: Iterator[dict[str, Any]], records: Records, progress: Progress) -> None:
        for number, record in enumerate(done):
            records[record["shard"]] = record
            progress.update(record["rows"])
            if number == 0 and self.plan.points is not None and (warning := self._scale_warning(record["shard"])):
                progress.print_line(warning)

    def _check_present(self) -> None:
        """Looks up one image of each identity until one is found: a disk that is not mounted is an empty folder.

        Images with a place have just been seen.

        Raises:
            SourceError: none is found.
        """
        plan = self.plan
        if plan.places is not None:
            return
        rows = plan.first_rows()
        if not any(is_present(self.reader, plan.keys[row].as_py()) for row in rows.tolist()):
            raise SourceError(
                f"{self.options.root}: holds no image of {counted(len(rows), 'identity')} looked up, such as"
                f" {plan.keys[rows[0]]}; check --root, and whether its disk is mounted"
            )

    def _scale_warning(self, shard: int) -> str | None:
        """Says that the points of a committed shard do not fit the sizes of its images."""
        options, columns = self.options, ("key", "landmarks", "width", "height")
        rows = read_table(options.out / shard_file(shard, "parquet"), pa.schema(map(ROW_SCHEMA.field, columns)))
        seen = rows.filter(rows["width"].is_valid()).to_pylist()
        tried = [seen[number] for number in spread(len(seen))]
        sized = [
            (row["key"], np.reshape(row["landmarks"], (-1, 2)).tolist(), (row["width"], row["height"])) for row in tried
        ]
        warning = scale_warning(sized)
        return warning and f"{', '.join(path.name for path in options.landmarks) or options.origin_name}: {warning}"

    def tasks(self, records: Records) -> Iterator[ShardTask]:
        """What workers need to build the shards of this process that ``records`` lacks."""
        plan = self.plan
        for shard in [shard for shard in self.share if shard not in records]:
            rows = plan.shards[shard]
            yield ShardTask(
                shard=shard,
                options=self.options,
                fingerprint=self.fingerprint,
                keys=plan.keys.take(rows).to_pylist(),
                places=None if plan.places is None else plan.places.take(rows).to_pylist(),
                reader=self.reader,
                identities=plan.identities.take(rows).to_pylist(),
                labels=plan.labels[rows].tolist(),
                points=None if plan.points is None else plan.points[rows],
                rejected=plan.rejected.among(rows),
                watch=self.watch,
                versions=library_versions(plan.points is not None),
            )

    def _unpublish(self, keep: Records) -> None:
        """Deletes manifest, then index and outdated done records: a set never looks finished while shards change."""
        self._remove_temporaries()
        names = (MANIFEST, INDEX, *(_done(shard) for shard in self.share if shard not in keep))
        if self.stored:
            self.stored.unpublish(names)
        for name in names:
            (self.options.out / name).unlink(missing_ok=True)

    def _remove_temporaries(self) -> None:
        """Deletes what killed processes left; of a part, that of its own shards: others may be writing theirs."""
        names = {shard_file(shard, suffix) for shard in self.share for suffix in (*DATA_SUFFIXES, DONE_SUFFIX)}
        remove_temporaries(self.options.out, None if self.part == WHOLE else names)

    def finish(self, records: Records) -> None:
        """Writes index and manifest of all shards; this process has locked ``out``."""
        remove_temporaries(self.options.out)
        if self.stored:
            self.stored.unpublish(())
            self.stored.gather(records)
        finish_set(
            self.options.out,
            [records[shard] for shard in range(len(self.plan.shards))],
            fingerprint=self.fingerprint,
            source=self.options.source,
            identities=self.plan.identity_count,
            preprocessing=self.options.preprocessing.to_dict(),
            versions=library_versions(self.plan.points is not None),
        )
        if self.stored:
            self.stored.publish()


def _done(shard: int) -> str:
    return shard_file(shard, DONE_SUFFIX)


def planned(options: BuildOptions, exclusions: Exclusions | None, part: Part = WHOLE) -> Job:
    """Lists the source, compares it with an earlier build in ``out``, makes the plan and prints its counts.

    Raises:
        LandmarkError, LandmarkerError, SourceError, ShardError, StoreError: see ``build``.
    """
    stored = StoredBuild(options.store, options.out) if options.store else None
    if stored:
        stored.begin()
    source = find_source(options.source)
    watch = SourceWatch(source.watched(options.root))
    if options.landmark_model is not None:
        make_landmarks(options, source)
    if options.stored_root:
        rows = options.stored_root.rows(source, options.landmarks, aligning=options.aligning)
    else:
        arguments = options.source_arguments(source)
        rows = source.rows(options.root, options.landmarks, aligning=options.aligning, **arguments)
    parts = fingerprint_parts(options, rows, exclusions)
    check_plan(options, parts, alone=part == WHOLE)
    plan = make_plan(
        rows,
        exclude=exclusions.entries if exclusions else (),
        min_images=options.min_images,
        images_per_shard=options.images_per_shard,
        group=options.group,
    )
    print_plan(plan, options, rows)
    if len(plan.rejected) == len(plan.keys):
        first = next((row for row in plan.rejected if plan.rejected[row][1]), None)
        example = "" if first is None else f", such as {plan.keys[first]}: {plan.rejected[first][1]}"
        raise ShardError(
            f"{options.root}: no image is left to store ({describe(plan.rejected.counts())}{example}); nothing was written"
        )
    return Job(
        options=options,
        plan=plan,
        reader=rows.reader,
        watch=watch,
        parts=parts,
        fingerprint=digest(parts),
        part=part,
        stored=stored,
    )
