"""The index of a set that is larger than what is held at a time."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from shards import finish
from shards.finish import finish_set
from shards.schema import INDEX, shard_file
from shards.writer import Row, ShardWriter

PEOPLE = 40


@pytest.fixture
def records(tmp_path):
    """The done records of seven shards; some rows are not stored, and one shard stores none."""
    rng = np.random.default_rng(2)
    rows = rng.permutation([(who, image) for who in range(PEOPLE) if who != 7 for image in range(1 + who % 9)])
    found = []
    for shard, part in enumerate([*np.array_split(rows, 6), rows[:2]]):
        with ShardWriter(tmp_path, shard, "f") as writer:
            for who, image in part.tolist():
                row = Row(key=f"n{who}/{image}", identity=f"n{who}", label=who, landmarks=[float(image)] * 10)
                is_bad = shard == 6 or image == 8
                row.status = "missing-file" if is_bad else "ok"
                writer.add(row, None if is_bad else f"{who} {image}".encode())
            found.append(writer.commit())
    return found


@pytest.mark.parametrize("run_rows", [1, 30, 100])
def test_an_index_that_goes_through_files_is_the_same(tmp_path, records, monkeypatch, run_rows):
    monkeypatch.setattr(finish, "SORT_ROWS", 20)
    written = []
    for rows in (10**6, run_rows):
        monkeypatch.setattr(finish, "RUN_ROWS", rows)
        finish_set(
            tmp_path, records, fingerprint="f", source="folder", identities=PEOPLE, preprocessing={}, versions={}
        )
        written.append((tmp_path / INDEX).read_bytes())
    assert written[0] == written[1]
    table = pq.read_table(tmp_path / INDEX)
    stored = pa.concat_tables(pq.read_table(tmp_path / shard_file(shard, "parquet")) for shard in range(7))
    stored = stored.filter(pc.equal(stored["status"], "ok")).sort_by([("label", "ascending"), ("key", "ascending")])
    assert table.num_rows == stored.num_rows > 100
    assert table.equals(stored.select(table.schema.names))
    assert pq.ParquetFile(tmp_path / INDEX).num_row_groups > 6
    assert not [path for path in tmp_path.iterdir() if ".partial" in path.name]


def test_every_shard_is_read_once(tmp_path, records, monkeypatch):
    """Once for each range of labels took hours at 42 million rows."""
    monkeypatch.setattr(finish, "SORT_ROWS", 20)
    monkeypatch.setattr(finish, "RUN_ROWS", 30)
    read, real = [], finish._stored_rows
    monkeypatch.setattr(finish, "_stored_rows", lambda path: read.append(path.name) or real(path))
    finish_set(tmp_path, records, fingerprint="f", source="folder", identities=PEOPLE, preprocessing={}, versions={})
    assert read == [shard_file(shard, "parquet") for shard in range(7)]
