"""The lines that a build prints on stderr before and after its work."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipeline.build.options import BuildOptions
from pipeline.build.parts import Part
from pipeline.build.plan import Plan
from pipeline.sources.listing import NAMED, shortened
from pipeline.sources.source import Rows
from pipeline.tables.landmark_order import report_order
from shards.finish import describe
from shards.messages import counted, print_stderr
from shards.schema import INDEX, INDEX_SCHEMA, Manifest
from shards.tables import read_table


def print_plan(plan: Plan, options: BuildOptions, rows: Rows) -> None:
    """Prints the counts of the input."""
    names = ", ".join(path.name for path in options.landmarks) or options.origin_name
    print_stderr(
        f"{counted(len(plan.keys), 'row')} of {names}: {counted(len(plan.keys) - len(plan.rejected), 'image')} of"
        f" {counted(plan.identity_count, 'identity')} to store"
    )
    if rows.points is not None:
        report_order(rows.points, names)
    if rows.others:
        print_stderr(f"{names}: ignored {counted(len(rows.others), 'other entry')} ({shortened(rows.others)})")
    if options.exclude:
        removed = plan.rejected.counts()["excluded"]
        unmatched = plan.unmatched_exclusions
        tail = f"; {counted(len(unmatched), 'entry')} without a match ({shortened(unmatched)})" if unmatched else ""
        print_stderr(f"{options.exclude.name}: removed {counted(removed, 'image')}{tail}")


def print_part(part: Part, plan: Plan, missing: Sequence[int]) -> None:
    """Prints that a part is done, and what the set lacks."""
    shards = len(plan.shards)
    line = f"part {part} done, {len(part.share(shards)):,} of {counted(shards, 'shard')}"
    if missing:
        others = sorted({part.of(shard).number for shard in missing})
        named = shortened([f"{number}/{part.count}" for number in others])
        line += f"; missing: {counted(len(missing), 'shard')} of part {named}"
    print_stderr(line)


def print_result(manifest: Manifest, options: BuildOptions, plan: Plan, *, finished: bool) -> None:
    """Prints the counts of the set.

    Args:
        finished: by an earlier command.
    """
    state = "already complete, nothing to do" if finished else "done"
    print_stderr(
        f"{state}: {counted(manifest.images, 'image')} of {counted(manifest.identities, 'identity')}"
        f" in {counted(manifest.shards, 'shard')} at {options.place}"
    )
    if manifest.empty_identities:
        print_stderr(f"{counted(manifest.empty_identities, 'identity')} lost all images; labels stay the same")
    print_stderr(f"rejected: {describe(manifest.statuses)}")
    _print_small_identities(plan, options)


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
