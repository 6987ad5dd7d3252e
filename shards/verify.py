"""Verifies a shard set: every file, record, row, index entry and, on request, every byte."""

from __future__ import annotations

import itertools
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from shards.arguments import check_argument, check_path
from shards.card import CARD, DATA_FILES, is_damaged
from shards.errors import ShardError
from shards.files import StrPath, digest, file_facts
from shards.messages import counted, first_line
from shards.schema import (
    DATA_SUFFIXES,
    DONE_SUFFIX,
    INDEX,
    INDEX_SCHEMA,
    PLAN,
    ROW_SCHEMA,
    STATUS_OK,
    Manifest,
    read_done,
    read_plan,
    shard_file,
)
from shards.tables import read_table
from shards.writer import member_stem

COLUMNS = ["key", "label", "shard", "offset", "size", "xxh3"]
MAX_PROBLEMS = 5  # reported per file and kind
# tarfile raises any of these on damaged files
_TAR_ERRORS = (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, MemoryError, LookupError, RecursionError)


def verify(
    root: StrPath,
    *,
    full: bool = False,
    on_shard: Callable[[], None] = lambda: None,
    before_shard: Callable[[int], None] = lambda shard: None,
) -> Iterator[str]:
    """Yields one line per problem of the shard set ``root``; checks while it is iterated over, as by ``list(verify(root))``.

    Checks the SHA-256 of every file but the tars, the sizes of the tars, and that records, rows, DALI indexes and
    ``index.parquet`` agree. Parquet files with another SHA-256 are not read: that could take any amount of memory.

    Args:
        full: also check the SHA-256 of the tars, and every member against its row.
        on_shard: called after each shard.
        before_shard: called with the number of a shard before its files are looked at.

    Raises:
        ShardError: the manifest cannot be read.
        TypeError: ``root`` is not a path.
    """
    root = check_path("root", root)
    check_argument(isinstance(full, bool), "full", full, "True or False")
    check_argument(callable(on_shard), "on_shard", on_shard, "a function without arguments")
    manifest = Manifest.read(root)
    yield from _check_plan(root, manifest)
    index = None
    problems = list(_check_file(root / INDEX, manifest.files[INDEX]))
    if not problems:
        try:
            index = _in_tar_order(read_table(root / INDEX, pa.schema(map(INDEX_SCHEMA.field, COLUMNS))))
        except ShardError as error:
            problems.append(str(error))
    yield from problems
    if index is not None and index.num_rows != manifest.images:
        yield f"{root / INDEX}: {counted(index.num_rows, 'row')}, expected {manifest.images:,} as in the manifest"
    parts = [None] * manifest.shards if index is None else _per_shard(index, manifest.shards)
    for shard in range(manifest.shards):
        before_shard(shard)
        try:
            yield from _check_shard(root, shard, manifest, parts[shard], full)
        except ShardError as error:
            yield str(error)
        on_shard()
    if is_damaged(root):
        yield f"{root / CARD}: content changed; delete it, or write your own with {DATA_FILES.decode()!r} in it"
    known = {shard_file(shard, suffix) for shard in range(manifest.shards) for suffix in (*DATA_SUFFIXES, DONE_SUFFIX)}
    for path in sorted(root.glob("shard-*")):
        if path.name not in known:
            yield f"{path}: not part of this set, which has {counted(manifest.shards, 'shard')}"


def _check_plan(root: Path, manifest: Manifest) -> Iterator[str]:
    try:
        parts = read_plan(root)["parts"]
    except ShardError as error:
        yield str(error)
        return
    if digest(parts) != manifest.fingerprint:
        yield f"{root / PLAN}: the plan of another build (its fingerprint differs from the manifest's)"


def _check_shard(root: Path, shard: int, manifest: Manifest, expected: pa.Table | None, full: bool) -> Iterator[str]:
    """Raises: ShardError: the done record or the rows cannot be read."""
    done_path = root / shard_file(shard, DONE_SUFFIX)
    if problems := list(_check_file(done_path, manifest.files[done_path.name])):
        yield from problems
        return
    record = read_done(root, shard)
    if record["fingerprint"] != manifest.fingerprint:
        yield f"{done_path}: the record of another build (its fingerprint differs from the manifest's)"
    tar, idx, parquet = paths = [root / shard_file(shard, suffix) for suffix in DATA_SUFFIXES]
    found = {path: list(_check_file(path, record["files"][path.name], full or path != tar)) for path in paths}
    yield from itertools.chain.from_iterable(found.values())
    if found[parquet]:
        return
    rows = read_table(parquet, ROW_SCHEMA)
    counts = {entry["values"]: entry["counts"] for entry in pc.value_counts(rows["status"]).to_pylist()}
    if counts != record["statuses"]:
        yield f"{parquet}: statuses {counts}, expected {record['statuses']} as in the done record"
    stored = rows.filter(pc.equal(rows["status"], STATUS_OK))
    if any(stored[name].null_count for name in COLUMNS):
        yield f"{parquet}: the position of a stored image is missing"
        return
    if expected is not None:
        yield from _check_index(root / INDEX, expected, parquet.name, _in_tar_order(stored.select(COLUMNS)))
    if not found[idx]:
        yield from _check_idx(idx, stored)
    if full and tar.is_file():
        yield from _check_tar(tar, stored)


def _check_file(path: Path, facts: dict[str, Any], content: bool = True) -> Iterator[str]:
    try:
        if not path.is_file():
            yield f"{path}: {'not a regular file' if path.exists() else 'missing'}"
        elif (size := path.stat().st_size) != (stated := facts["size"]):
            yield f"{path}: {counted(size, 'byte')}, expected {stated:,} ({'truncated' if size < stated else 'too long'})"
        elif content and file_facts(path)["sha256"] != facts["sha256"]:
            yield f"{path}: content changed (SHA-256 does not match)"
    except OSError as error:
        yield f"{path}: cannot be read: {error.strerror or error}"


def _check_index(path: Path, found: pa.Table, source: str, expected: pa.Table) -> Iterator[str]:
    if found.num_rows != expected.num_rows:
        yield f"{path}: {counted(found.num_rows, 'image')} of its shard, expected {expected.num_rows:,} as in {source}"
        return
    for name in COLUMNS:
        differs = pc.fill_null(pc.not_equal(found[name], expected[name]), True)
        wrong = np.flatnonzero(differs.to_numpy(zero_copy_only=False))
        for row in wrong[:MAX_PROBLEMS].tolist():
            key, value = found["key"][row], found[name][row]
            yield f"{path}: {name} of {key} is {value}, expected {expected[name][row]} as in {source}"


def _check_idx(path: Path, stored: pa.Table) -> Iterator[str]:
    lines = path.read_text(errors="replace").splitlines()
    if lines[:1] != [f"v1.2 {stored.num_rows}"] or len(lines) != stored.num_rows + 1:
        yield f"{path}: {counted(max(len(lines) - 1, 0), 'entry')}, expected {stored.num_rows:,}"
        return
    rows = zip(lines[1:], *(stored[name].to_pylist() for name in ("key", "offset", "size")), strict=True)
    problems = (
        f"{path}: the entry of {key} does not match its row (offset {offset}, size {size}): {line[:80]}"
        for line, key, offset, size in rows
        if not line.startswith(f"jpg {offset} {size} {member_stem(key)}.jpg cls ")
    )
    yield from itertools.islice(problems, MAX_PROBLEMS)


def _check_tar(path: Path, stored: pa.Table) -> Iterator[str]:
    wrong = 0
    rows = zip(*(stored[name].to_pylist() for name in ("key", "label", "offset", "size", "xxh3")), strict=True)
    try:
        with tarfile.open(path, "r:") as tar:
            for key, label, offset, size, xxh3 in rows:
                problem = _member_problem(tar, member_stem(key), label, offset, size, xxh3)
                if problem and wrong < MAX_PROBLEMS:
                    wrong += 1
                    yield f"{path}: {key}: {problem}"
                tar.members = []  # type: ignore[attr-defined]  # tarfile would keep every member it has read
            if tar.next() is not None:
                yield f"{path}: more members than rows"
    except _TAR_ERRORS as error:
        yield f"{path}: not a readable tar ({first_line(error, 160)})"


def _member_problem(tar: tarfile.TarFile, stem: str, label: int, offset: int, size: int, xxh3: int) -> str | None:
    image, cls = tar.next(), tar.next()
    if image is None or cls is None:
        return "missing from the tar"
    if (image.name, cls.name, image.offset_data) != (f"{stem}.jpg", f"{stem}.cls", offset):
        return f"found {image.name} at byte {image.offset_data}, expected {stem}.jpg at {offset}"
    sizes, expected = (image.size, cls.size), (size, len(str(label)))
    if sizes != expected or {image.type, cls.type} != {tarfile.REGTYPE}:  # checked before they are read
        return f"found {sizes[0]} and {sizes[1]} bytes, expected files of {expected[0]} and {expected[1]}"
    if xxhash.xxh3_64_intdigest(tar.extractfile(image).read()) != xxh3:  # type: ignore[union-attr]
        return "image content changed (xxh3 does not match)"
    if tar.extractfile(cls).read() != str(label).encode():  # type: ignore[union-attr]
        return f"its .cls is not {label}"
    return None


def _in_tar_order(table: pa.Table) -> pa.Table:
    return table.sort_by([("shard", "ascending"), ("offset", "ascending")]).cast(
        pa.schema([INDEX_SCHEMA.field(name) for name in table.column_names])
    )


def _per_shard(index: pa.Table, shards: int) -> list[pa.Table]:
    bounds = np.searchsorted(index["shard"].to_numpy(), np.arange(shards + 1))
    return [index.slice(low, high - low) for low, high in zip(bounds, bounds[1:], strict=False)]
