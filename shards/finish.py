"""Finishes a set of committed shards: writes the sorted index, then the manifest."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shards.arguments import check_argument, check_path
from shards.card import write_card
from shards.errors import ShardError
from shards.files import file_facts, quick_digest, scratch_folder, whole_file, write_record
from shards.schema import DONE_SUFFIX, INDEX, INDEX_SCHEMA, MANIFEST, STATUS_OK, Manifest, shard_file

SORT_ROWS = 200_000  # rows sorted at a time, so that memory does not grow with the set
RUN_ROWS = 250_000  # rows held at a time; more are distributed to the ranges of labels through files


def finish_set(
    root: Path,
    records: list[dict[str, Any]],
    *,
    fingerprint: str,
    source: str,
    identities: int,
    preprocessing: dict[str, Any],
    versions: dict[str, str],
) -> None:
    """Writes ``index.parquet``, ``README.md`` unless there is one, and ``manifest.json``.

    Args:
        records: the done records of all shards, in order.

    Raises:
        ShardError: no shard contains an image, or the rows of a shard have changed since it was committed.
        TypeError: ``root`` is not a path, or ``records`` are not records.
    """
    root = check_path("root", root)
    good = isinstance(records, list) and all(isinstance(record, dict) for record in records)
    check_argument(good, "records", records, "a list of done records, as ShardWriter.commit() returns them")
    statuses = sum((Counter(record["statuses"]) for record in records), Counter[str]())
    images = statuses[STATUS_OK]
    if images == 0:
        checked = "--landmarks" if set(+statuses) <= {"bad-landmarks", "degenerate-landmarks"} else "--root"
        raise ShardError(
            f"{root}: no image could be stored ({describe(statuses)}{_example(root, records)}); check {checked}, and choose"
            " another --out"
        )
    _check_rows(root, records)
    occupied = _write_index(root, len(records), identities, images)
    write_card(root)
    names = [INDEX, *(shard_file(record["shard"], DONE_SUFFIX) for record in records)]
    manifest = Manifest(
        fingerprint=fingerprint,
        source=source,
        identities=identities,
        empty_identities=identities - occupied,
        images=images,
        rows=sum(statuses.values()),
        shards=len(records),
        statuses=dict(sorted(statuses.items())),
        preprocessing=preprocessing,
        files={name: file_facts(root / name) for name in names},
        versions=versions,
    )
    write_record(root / MANIFEST, manifest.to_record())


def _check_rows(root: Path, records: list[dict[str, Any]]) -> None:
    """Compares the hashes of the shards' rows: a shard may have been committed long ago, by an interrupted build.

    Raises:
        ShardError: a file has changed.
    """
    for record in records:
        path = root / shard_file(record["shard"], "parquet")
        if quick_digest(path) != record["files"][path.name]["xxh3"]:
            done = shard_file(record["shard"], DONE_SUFFIX)
            raise ShardError(
                f"{path}: content changed (xxh3 does not match); delete {done}, then run the same command again"
            )


def _example(root: Path, records: list[dict[str, Any]]) -> str:
    """The first rejected image, with the reason."""
    for record in records:
        with open(root / shard_file(record["shard"], "parquet"), "rb") as stream, pq.ParquetFile(stream) as reader:
            for row in reader.read(["key", "error_message"], use_threads=False).slice(0, 1).to_pylist():
                return f", such as {row['key']}: {row['error_message']}"
    return ""


def describe(statuses: dict[str, int]) -> str:
    """Formats the rejected rows by status, such as ``3 missing-file, 1 unreadable-image``."""
    rejected = sorted((status, count) for status, count in statuses.items() if status != STATUS_OK and count)
    return ", ".join(f"{count:,} {status}" for status, count in rejected) or "none"


def _write_index(root: Path, shards: int, identities: int, images: int) -> int:
    """Writes the index, a range of labels at a time; returns the number of labels in it."""
    parts = -(-images // SORT_ROWS)
    bounds = [identities * part // parts for part in range(parts + 1)]
    paths = [root / shard_file(shard, "parquet") for shard in range(shards)]
    occupied = 0
    with (
        whole_file(root / INDEX) as temporary,
        open(temporary, "wb") as stream,  # PyArrow would take a path with a colon for a URI
        pq.ParquetWriter(stream, INDEX_SCHEMA, compression="zstd") as writer,
        scratch_folder(root / INDEX) as scratch,
    ):
        ranges = _ranges(_runs(paths), bounds) if images <= RUN_ROWS else _spilled_ranges(_runs(paths), bounds, scratch)
        for rows in ranges:
            occupied += pc.count_distinct(rows["label"]).as_py()
            pa.default_memory_pool().release_unused()  # the pool retains twice the memory in use
            rows = rows.sort_by([("label", "ascending"), ("key", "ascending")])
            pa.default_memory_pool().release_unused()
            if rows.num_rows:
                writer.write_table(rows)
    return occupied


def _runs(paths: list[Path]) -> Iterator[pa.Table]:
    """Yields the stored rows of all shards, about ``RUN_ROWS`` at a time."""
    tables: list[pa.Table] = []
    for path in paths:
        tables.append(_stored_rows(path))
        if sum(table.num_rows for table in tables) >= RUN_ROWS:
            yield pa.concat_tables(tables).combine_chunks()
            tables = []
    if tables:
        yield pa.concat_tables(tables).combine_chunks()


def _stored_rows(path: Path) -> pa.Table:
    """Reads the stored rows of one shard."""
    with open(path, "rb") as stream, pq.ParquetFile(stream, pre_buffer=False) as reader:
        rows = reader.read([*INDEX_SCHEMA.names, "status"], use_threads=False)
    return rows.filter(pc.equal(rows["status"], STATUS_OK)).select(INDEX_SCHEMA.names)


def _ranges(runs: Iterable[pa.Table], bounds: list[int]) -> Iterator[pa.Table]:
    """Yields the rows of each range of labels, of rows that memory holds."""
    rows = pa.concat_tables(runs)
    label = rows["label"]
    for low, high in itertools.pairwise(bounds):
        yield rows.filter(pc.and_(pc.greater_equal(label, low), pc.less(label, high))).combine_chunks()


def _spilled_ranges(runs: Iterable[pa.Table], bounds: list[int], scratch: Path) -> Iterator[pa.Table]:
    """As ``_ranges``; each run is a file in ``scratch``, with a batch for each range: every shard is read once."""
    paths = []
    for number, rows in enumerate(runs):
        paths.append(scratch / f"run-{number}.arrow")
        part = np.searchsorted(bounds, rows["label"].to_numpy(), side="right") - 1
        rows = rows.take(np.argsort(part, kind="stable")).combine_chunks()
        ends = np.cumsum(np.bincount(part, minlength=len(bounds) - 1)).tolist()
        with open(paths[-1], "wb") as stream, pa.ipc.new_file(stream, rows.schema) as writer:
            for start, end in itertools.pairwise([0, *ends]):
                columns = [column.chunk(0).slice(start, end - start) for column in rows.columns]
                writer.write_batch(pa.record_batch(columns, schema=rows.schema))
        del rows, columns
        pa.default_memory_pool().release_unused()
    for part in range(len(bounds) - 1):
        batches = []
        for path in paths:
            with open(path, "rb") as run:
                batches.append(pa.ipc.open_file(run).get_batch(part))
        yield pa.Table.from_batches(batches).combine_chunks()
