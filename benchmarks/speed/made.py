"""Shard sets of any number of images, made of a small one in a moment."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from benchmarks.speed import VGGFACE2
from shards.files import file_facts, write_record
from shards.schema import INDEX, INDEX_SCHEMA, MANIFEST, STATUS_OK, Manifest, shard_file
from shards.writer import DATA_SUFFIXES, DONE_SUFFIX

_PER_SHARD, _AT_ONCE = 5000, 200_000  # rows, as a build has them
_LEAST_IDENTITIES = 128  # a batch of the reference
_BLOCK = 512


def make_set(base: Path, out: Path, rows: int) -> None:
    """Writes a shard set of ``rows`` images that can all be read, as sparse in repeats as a real one.

    Its tars are hard links to those of ``base``. Rows that share a JPEG differ in how many of the zeros that follow it
    in the tar they count to it, and hence in size and hash; their landmarks are moved a little. So columns are about
    as hard to compress as those of a real set of this size.

    Args:
        base: a set of aligned images.
    """
    manifest = Manifest.read(base)
    index = pq.read_table(base / INDEX)
    shards = max(-(-rows // _PER_SHARD), manifest.shards)
    out.mkdir(parents=True)
    for shard in range(shards):
        for suffix in (*DATA_SUFFIXES, DONE_SUFFIX):
            os.link(base / shard_file(shard % manifest.shards, suffix), out / shard_file(shard, suffix))
    tars = [(base / shard_file(shard, "tar")).read_bytes() for shard in range(manifest.shards)]
    identities = max(rows * VGGFACE2[1] // VGGFACE2[0], min(_LEAST_IDENTITIES, rows))
    labels = np.arange(rows) * identities // rows
    rng = np.random.default_rng(0)
    with pq.ParquetWriter(out / INDEX, INDEX_SCHEMA, compression="zstd") as writer:
        for start in range(0, rows, _AT_ONCE):
            writer.write_table(_rows(index, tars, labels, slice(start, min(start + _AT_ONCE, rows)), shards, rng))
    names = [INDEX, *(shard_file(shard, DONE_SUFFIX) for shard in range(shards))]
    made = Manifest(
        fingerprint=manifest.fingerprint,
        source=manifest.source,
        identities=identities,
        empty_identities=0,
        images=rows,
        rows=rows,
        shards=shards,
        statuses={STATUS_OK: rows},
        preprocessing=manifest.preprocessing,
        files={name: file_facts(out / name) for name in names},
        versions=manifest.versions,
    )
    write_record(out / MANIFEST, made.to_record())


def _rows(
    index: pa.Table, tars: list[bytes], labels: np.ndarray, which: slice, shards: int, rng: np.random.Generator
) -> pa.Table:
    """Some rows of the index, drawn from those of the base."""
    label = labels[which]
    drawn = rng.integers(len(index), size=len(label))
    table = index.take(drawn)
    source, offset, size = (table[name].to_numpy() for name in ("shard", "offset", "size"))
    size = size + rng.integers(-size % _BLOCK + 1)
    links = (shards - source + len(tars) - 1) // len(tars)  # of each tar, among the shards
    identity = _numbered(label, "n", 6)
    columns = {
        "key": pc.binary_join_element_wise(identity, _numbered(np.arange(which.start, which.stop), "", 7), "/"),
        "identity": identity,
        "label": label.astype(np.int32),
        "shard": (source + len(tars) * rng.integers(links)).astype(np.int32),
        "offset": offset,
        "size": size.astype(np.int32),
        "xxh3": np.array(
            [
                xxhash.xxh3_64_intdigest(memoryview(tars[tar])[at : at + length])
                for tar, at, length in zip(source.tolist(), offset.tolist(), size.tolist(), strict=True)
            ],
            np.uint64,
        ),
        "landmarks": _moved(table["landmarks"], rng),
        "matrix": _moved(table["matrix"], rng),
    }
    return pa.table({name: columns.get(name, table[name]) for name in INDEX_SCHEMA.names}, schema=INDEX_SCHEMA)


def _numbered(numbers: np.ndarray, prefix: str, digits: int) -> pa.Array:
    padded = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), digits, "0")
    return pc.binary_join_element_wise(prefix, padded, "")


def _moved(column: pa.ChunkedArray, rng: np.random.Generator) -> pa.Array:
    """Lists of numbers, each moved by up to a hundredth."""
    lists = column.combine_chunks()
    values = lists.flatten().to_numpy()
    ends = np.append(0, np.cumsum(pc.list_value_length(lists).to_numpy()))
    moved = (values + rng.uniform(-0.01, 0.01, len(values))).astype(np.float32)
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(moved))
