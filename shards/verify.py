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
import pyarrow.parquet as pq
import xxhash

from shards.errors import ShardError
from shards.files import file_facts, read_record
from shards.schema import INDEX, INDEX_SCHEMA, PLAN, ROW_SCHEMA, STATUS_OK, Manifest, shard_file
from shards.writer import DATA_SUFFIXES, DONE_SUFFIX, member_stem

COLUMNS = ["key", "label", "shard", "offset", "size", "xxh3"]
MAX_PROBLEMS = 5  # reported per file and kind


def verify(root: Path, *, full: bool = False, on_shard: Callable[[], None] = lambda: None) -> Iterator[str]:
    """Yields one line per problem of the shard set ``root``.

    Checks that every file exists and has its size, that records match their digests, and that rows, DALI indexes and
    ``index.parquet`` agree.

    Args:
        full: also check the SHA-256 of every file, and every tar member against its row.
        on_shard: called after each shard.

    Raises:
        ShardError: the manifest cannot be read.
    """
    manifest = Manifest.read(root)
    try:
        read_record(root / PLAN)
    except ShardError as error:
        yield str(error)
    yield from _check_file(root / INDEX, manifest.files[INDEX], full)
    try:
        index = _in_tar_order(pq.read_table(root / INDEX, columns=COLUMNS))
    except (OSError, ValueError, KeyError) as error:
        yield f"{root / INDEX}: cannot be read ({_first_line(error)})"
        index = None
    if index is not None and index.num_rows != manifest.images:
        yield f"{root / INDEX}: {index.num_rows} rows, expected {manifest.images} images as in the manifest"
    parts = [None] * manifest.shards if index is None else _per_shard(index, manifest.shards)
    for shard in range(manifest.shards):
        yield from _check_shard(root, shard, manifest, parts[shard], full)
        on_shard()
    known = {shard_file(shard, suffix) for shard in range(manifest.shards) for suffix in (*DATA_SUFFIXES, DONE_SUFFIX)}
    for path in sorted(root.glob("shard-*")):
        if path.name not in known:
            yield f"{path}: not part of this set, which has {manifest.shards} shards"


def _check_shard(root: Path, shard: int, manifest: Manifest, expected: pa.Table | None, full: bool) -> Iterator[str]:
    done_path = root / shard_file(shard, DONE_SUFFIX)
    if problems := list(_check_file(done_path, manifest.files[done_path.name], full=True)):
        yield from problems
        return
    record = read_record(done_path)
    for name, facts in sorted(record["files"].items()):
        problems += _check_file(root / name, facts, full)
    tar, idx, parquet = (root / shard_file(shard, suffix) for suffix in DATA_SUFFIXES)
    rows = _read_rows(parquet)
    if isinstance(rows, str):
        yield from problems or [rows]
        return
    yield from problems
    counts = {entry["values"]: entry["counts"] for entry in pc.value_counts(rows["status"]).to_pylist()}
    if counts != record["statuses"]:
        yield f"{parquet}: statuses {counts}, expected {record['statuses']} as in the done record"
    stored = rows.filter(pc.equal(rows["status"], STATUS_OK))
    if expected is not None:
        yield from _check_index(root / INDEX, expected, parquet.name, _in_tar_order(stored.select(COLUMNS)))
    if idx.exists():
        yield from _check_idx(idx, stored)
    if full and tar.exists():
        yield from _check_tar(tar, stored)


def _check_file(path: Path, facts: dict[str, Any], full: bool) -> Iterator[str]:
    if not path.is_file():
        yield f"{path}: missing"
    elif (size := path.stat().st_size) != facts["size"]:
        yield f"{path}: {size} bytes, expected {facts['size']} ({'truncated' if size < facts['size'] else 'too long'})"
    elif full and file_facts(path)["sha256"] != facts["sha256"]:
        yield f"{path}: content changed (SHA-256 does not match)"


def _check_index(path: Path, found: pa.Table, source: str, expected: pa.Table) -> Iterator[str]:
    if found.num_rows != expected.num_rows:
        yield f"{path}: {found.num_rows} images of its shard, expected {expected.num_rows} as in {source}"
        return
    for name in COLUMNS:
        wrong = np.flatnonzero(pc.not_equal(found[name], expected[name]).to_numpy(zero_copy_only=False))
        for row in wrong[:MAX_PROBLEMS].tolist():
            key, value = found["key"][row], found[name][row]
            yield f"{path}: {name} of {key} is {value}, expected {expected[name][row]} as in {source}"


def _check_idx(path: Path, stored: pa.Table) -> Iterator[str]:
    lines = path.read_text(errors="replace").splitlines()
    if lines[:1] != [f"v1.2 {stored.num_rows}"] or len(lines) != stored.num_rows + 1:
        yield f"{path}: {max(len(lines) - 1, 0)} entries, expected {stored.num_rows}"
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
    rows = zip(*(stored[name].to_pylist() for name in ("key", "label", "offset", "xxh3")), strict=True)
    try:
        with tarfile.open(path, "r:") as tar:
            for key, label, offset, xxh3 in rows:
                problem = _member_problem(tar, member_stem(key), label, offset, xxh3)
                if problem and wrong < MAX_PROBLEMS:
                    wrong += 1
                    yield f"{path}: {key}: {problem}"
                tar.members = []  # type: ignore[attr-defined]  # tarfile would keep every member it has read
            if tar.next() is not None:
                yield f"{path}: more members than rows"
    except (tarfile.TarError, OSError, EOFError) as error:
        yield f"{path}: not a readable tar ({_first_line(error)})"


def _member_problem(tar: tarfile.TarFile, stem: str, label: int, offset: int, xxh3: int) -> str | None:
    image, cls = tar.next(), tar.next()
    if image is None or cls is None:
        return "missing from the tar"
    if (image.name, cls.name, image.offset_data) != (f"{stem}.jpg", f"{stem}.cls", offset):
        return f"found {image.name} at byte {image.offset_data}, expected {stem}.jpg at {offset}"
    if xxhash.xxh3_64_intdigest(tar.extractfile(image).read()) != xxh3:  # type: ignore[union-attr]
        return "image content changed (xxh3 does not match)"
    if tar.extractfile(cls).read() != str(label).encode():  # type: ignore[union-attr]
        return f"its .cls is not {label}"
    return None


def _read_rows(path: Path) -> pa.Table | str:
    try:
        table = pq.read_table(path)
    except (OSError, ValueError) as error:
        return f"{path}: cannot be read ({_first_line(error)})"
    return table if table.schema.equals(ROW_SCHEMA) else f"{path}: unexpected columns for this format version"


def _in_tar_order(table: pa.Table) -> pa.Table:
    return table.sort_by([("shard", "ascending"), ("offset", "ascending")]).cast(
        pa.schema([INDEX_SCHEMA.field(name) for name in table.column_names])
    )


def _per_shard(index: pa.Table, shards: int) -> list[pa.Table]:
    bounds = np.searchsorted(index["shard"].to_numpy(), np.arange(shards + 1))
    return [index.slice(low, high - low) for low, high in zip(bounds, bounds[1:], strict=False)]


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
