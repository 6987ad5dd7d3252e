"""Makes shard sets of any size from a small one, in seconds."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from shards.files import file_facts, write_record
from shards.schema import DATA_SUFFIXES, DONE_SUFFIX, INDEX, INDEX_SCHEMA, MANIFEST, STATUS_OK, Manifest, shard_file

VGGFACE2_IMAGES, VGGFACE2_IDENTITIES = 3_141_890, 8631
SHARD_ROWS, CHUNK_ROWS = 5000, 200_000  # of a shard; of a row group of the index
MIN_IDENTITIES = 128  # a batch of the reference
TAR_BLOCK = 512  # bytes


def make_set(base: Path, out: Path, rows: int) -> None:
    """Writes a shard set of ``rows`` readable images in the proportions of VGGFace2.

    Its tars are hard links to those of ``base``. So that the index compresses no better than that of a real set, images
    that share a JPEG differ in the number of padding bytes that belong to them, and hence in hash, and in landmarks.

    Args:
        base: a set of aligned images.
    """
    manifest = Manifest.read(base)
    shards = max(-(-rows // SHARD_ROWS), manifest.shards)
    out.mkdir(parents=True)
    for shard in range(shards):
        for suffix in (*DATA_SUFFIXES, DONE_SUFFIX):
            os.link(base / shard_file(shard % manifest.shards, suffix), out / shard_file(shard, suffix))
    tars = [(base / shard_file(shard, "tar")).read_bytes() for shard in range(manifest.shards)]
    identities = max(rows * VGGFACE2_IDENTITIES // VGGFACE2_IMAGES, min(MIN_IDENTITIES, rows))
    labels = np.arange(rows) * identities // rows
    index, rng = pq.read_table(base / INDEX), np.random.default_rng(0)
    with pq.ParquetWriter(out / INDEX, INDEX_SCHEMA, compression="zstd") as writer:
        for start in range(0, rows, CHUNK_ROWS):
            writer.write_table(_chunk(index, tars, labels[start : start + CHUNK_ROWS], start, shards, rng))
    names = [INDEX, *(shard_file(shard, DONE_SUFFIX) for shard in range(shards))]
    made = dataclasses.replace(
        manifest,
        identities=identities,
        empty_identities=0,
        images=rows,
        rows=rows,
        shards=shards,
        statuses={STATUS_OK: rows},
        files={name: file_facts(out / name) for name in names},
    )
    write_record(out / MANIFEST, made.to_record())


def _chunk(
    index: pa.Table, tars: list[bytes], labels: np.ndarray, start: int, shards: int, rng: np.random.Generator
) -> pa.Table:
    """Rows from ``start`` of the new index, drawn from the rows of ``index``."""
    table = index.take(rng.integers(len(index), size=len(labels)))
    tar, offset, size = (table[name].to_numpy() for name in ("shard", "offset", "size"))
    size = size + rng.integers(-size % TAR_BLOCK + 1)
    links = (shards - tar + len(tars) - 1) // len(tars)  # number of new shards that are links to the tar
    spans = zip(tar.tolist(), offset.tolist(), size.tolist(), strict=True)
    hashes = [xxhash.xxh3_64_intdigest(memoryview(tars[which])[at : at + length]) for which, at, length in spans]
    identity = _numbered(labels, "n", 6)
    columns = {
        "key": pc.binary_join_element_wise(identity, _numbered(np.arange(start, start + len(labels)), "", 7), "/"),
        "identity": identity,
        "label": labels.astype(np.int32),
        "shard": (tar + len(tars) * rng.integers(links)).astype(np.int32),
        "offset": offset,
        "size": size.astype(np.int32),
        "xxh3": np.array(hashes, np.uint64),
        "landmarks": _moved(table["landmarks"], rng),
        "matrix": _moved(table["matrix"], rng),
    }
    return pa.table({name: columns.get(name, table[name]) for name in INDEX_SCHEMA.names}, schema=INDEX_SCHEMA)


def _numbered(numbers: np.ndarray, prefix: str, digits: int) -> pa.Array:
    padded = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), digits, "0")
    return pc.binary_join_element_wise(prefix, padded, "")


def _moved(column: pa.ChunkedArray, rng: np.random.Generator) -> pa.Array:
    """Lists of numbers, each number moved by up to 0.01."""
    lists = column.combine_chunks()
    values = lists.flatten().to_numpy()
    ends = np.append(0, np.cumsum(pc.list_value_length(lists).to_numpy()))
    moved = (values + rng.uniform(-0.01, 0.01, len(values))).astype(np.float32)
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(moved))
