"""verify names what is wrong, and only that."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.errors import ShardError
from shards.index import ShardIndex, ShardReader
from shards.verify import verify


def names(problems):
    return sorted({problem.partition(":")[0].rpartition("/")[2] for problem in problems})


@pytest.mark.parametrize("full", [False, True])
def test_a_sound_set_has_no_problems(shard_set, full):
    calls = []
    assert list(verify(shard_set, full=full, on_shard=lambda: calls.append(1))) == []
    assert len(calls) == 4


@pytest.mark.parametrize("suffix", ["tar", "idx", "parquet", "done.json"])
def test_a_missing_file_is_named(shard_set, suffix):
    (shard_set / f"shard-000002.{suffix}").unlink()
    problems = list(verify(shard_set))
    assert f"{shard_set}/shard-000002.{suffix}: missing" in problems
    assert names(problems) == [f"shard-000002.{suffix}"]


@pytest.mark.parametrize("suffix", ["tar", "idx", "parquet"])
def test_a_truncated_file_is_named(shard_set, suffix):
    path = shard_set / f"shard-000001.{suffix}"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-100])
    problems = list(verify(shard_set))
    assert f"{path}: {size - 100} bytes, {size} were written (truncated)" in problems
    assert names(problems) == [path.name]


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["shard-000003.tar", "shard-000003.idx", "shard-000003.parquet", "index.parquet"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.35, 0.7, 0.999])
def test_one_flipped_byte_is_named(shard_set, name, share):
    path = shard_set / name
    flip(path, int(share * path.stat().st_size))
    problems = list(verify(shard_set, full=True))
    assert f"{path}: its bytes changed (SHA-256 does not match)" in problems


def test_a_flipped_byte_of_an_image_names_its_key(shard_set):
    row = pq.read_table(shard_set / "index.parquet").to_pylist()[7]
    path = shard_set / f"shard-{row['shard']:06d}.tar"
    flip(path, row["offset"] + row["size"] // 2)
    assert list(verify(shard_set)) == []  # sizes only
    problems = list(verify(shard_set, full=True))
    assert f"{path}: {row['key']}: the image's bytes changed (xxh3 does not match)" in problems


@pytest.mark.parametrize("name", ["manifest.json", "plan.json", "shard-000000.done.json"])
def test_a_flipped_byte_in_a_record_is_named(shard_set, name):
    path = shard_set / name
    flip(path, path.read_bytes().index(b'"digest"') + 12)
    try:
        problems = list(verify(shard_set))
    except ShardError as error:
        problems = [str(error)]
    assert names(problems) == [name]


def test_an_index_that_disagrees_is_named(shard_set):
    path = shard_set / "index.parquet"
    table = pq.read_table(path)
    offsets = table["offset"].to_pylist()
    offsets[3] += 512
    pq.write_table(
        table.set_column(table.column_names.index("offset"), table.schema.field("offset"), pa.array(offsets)), path
    )
    problems = list(verify(shard_set))
    key = table["key"][3].as_py()
    assert any(f"{path}: offset of {key} is {offsets[3]}" in problem for problem in problems)


def test_a_stray_shard_is_named(shard_set):
    (shard_set / "shard-000009.tar").write_bytes(b"")
    assert list(verify(shard_set)) == [
        f"{shard_set}/shard-000009.tar: not part of this set (the manifest counts 4 shards)"
    ]


def test_the_reader_refuses_damage_by_key(shard_set):
    index = ShardIndex(shard_set)
    row = 11
    path = shard_set / f"shard-{index.shard[row]:06d}.tar"
    flip(path, int(index.offset[row]) + 40)
    with ShardReader(index) as reader, pytest.raises(ShardError) as error:
        reader.image(row)
    assert str(error.value) == (
        f"{path}: image {index.key(row)} at byte {index.offset[row]} is damaged (its xxh3 does not match); "
        f"run: python cli.py verify --full {shard_set}"
    )


def test_the_reader_names_a_missing_shard(shard_set):
    index = ShardIndex(shard_set)
    (shard_set / f"shard-{index.shard[0]:06d}.tar").unlink()
    with (
        ShardReader(index) as reader,
        pytest.raises(ShardError, match=r"No such file or directory; run: python cli\.py verify"),
    ):
        reader.image(0)


def test_an_index_that_is_not_the_manifest_s_is_not_read(shard_set):
    flip(shard_set / "index.parquet", 900)
    with pytest.raises(ShardError, match=r"index\.parquet: is not the index that the manifest names"):
        ShardIndex(shard_set)


def test_more_shards_than_open_files_are_read(shard_set, monkeypatch):
    monkeypatch.setattr("shards.index._allow_open_files", lambda wanted: 2)
    index = ShardIndex(shard_set)
    with ShardReader(index) as reader:
        for _ in range(2):
            assert all(reader.image(row)[:2] == b"\xff\xd8" for row in range(len(index)))
        assert len(reader._handles) <= 2


def test_an_unfinished_build_is_not_a_set(shard_set):
    (shard_set / "manifest.json").unlink()
    with pytest.raises(ShardError, match="an unfinished build: run build-shards again to resume it"):
        ShardIndex(shard_set)
