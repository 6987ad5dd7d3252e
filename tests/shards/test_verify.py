"""verify reports every problem of a shard set, and nothing else."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.errors import ShardError
from shards.verify import verify
from tests.shard_sets import flip_bit
from tests.shards.sealed import reseal


def names(problems):
    return sorted({problem.partition(":")[0].rpartition("/")[2] for problem in problems})


@pytest.mark.parametrize("full", [False, True])
def test_a_valid_set_has_no_problems(shard_set, full):
    calls = []
    assert list(verify(shard_set, full=full, on_shard=lambda: calls.append(1))) == []
    assert len(calls) == 4


@pytest.mark.parametrize("suffix", ["tar", "idx", "parquet", "done.json"])
def test_a_missing_file_is_reported(shard_set, suffix):
    (shard_set / f"shard-000002.{suffix}").unlink()
    problems = list(verify(shard_set))
    assert f"{shard_set}/shard-000002.{suffix}: missing" in problems
    assert names(problems) == [f"shard-000002.{suffix}"]


@pytest.mark.parametrize("suffix", ["tar", "idx", "parquet"])
def test_a_truncated_file_is_reported(shard_set, suffix):
    path = shard_set / f"shard-000001.{suffix}"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-100])
    problems = list(verify(shard_set))
    assert f"{path}: {size - 100:,} bytes, expected {size:,} (truncated)" in problems
    assert names(problems) == [path.name]


@pytest.mark.parametrize("name", ["shard-000003.tar", "shard-000003.idx", "shard-000003.parquet", "index.parquet"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.35, 0.7, 0.999])
def test_one_flipped_byte_is_reported(shard_set, name, share):
    path = shard_set / name
    flip_bit(path, int(share * path.stat().st_size))
    problems = list(verify(shard_set, full=True))
    assert f"{path}: content changed (SHA-256 does not match)" in problems


def test_a_flipped_byte_of_an_image_is_reported_with_its_key(shard_set):
    row = pq.read_table(shard_set / "index.parquet").to_pylist()[7]
    path = shard_set / f"shard-{row['shard']:06d}.tar"
    flip_bit(path, row["offset"] + row["size"] // 2)
    assert list(verify(shard_set)) == []  # sizes only
    problems = list(verify(shard_set, full=True))
    assert f"{path}: {row['key']}: image content changed (xxh3 does not match)" in problems


@pytest.mark.parametrize("name", ["manifest.json", "plan.json", "shard-000000.done.json"])
def test_a_flipped_byte_in_a_record_is_reported(shard_set, name):
    path = shard_set / name
    flip_bit(path, path.read_bytes().index(b'"digest"') + 12)
    try:
        problems = list(verify(shard_set))
    except ShardError as error:
        problems = [str(error)]
    assert names(problems) == [name]


def test_an_index_that_differs_from_the_rows_is_reported(shard_set):
    path = shard_set / "index.parquet"
    table = pq.read_table(path)
    offsets = table["offset"].to_pylist()
    offsets[3] += 512
    pq.write_table(
        table.set_column(table.column_names.index("offset"), table.schema.field("offset"), pa.array(offsets)), path
    )
    assert names(verify(shard_set)) == ["index.parquet"]
    reseal(shard_set)
    problems = list(verify(shard_set))
    key = table["key"][3].as_py()
    assert any(f"{path}: offset of {key} is {offsets[3]}" in problem for problem in problems)


@pytest.mark.parametrize("text", ["", "faces of my friends", "---\nlicense: mit\n---\n"])
def test_a_card_that_does_not_name_the_data_is_reported(shard_set, text):
    """With it, Hugging Face datasets takes the Parquet files for the data."""
    (shard_set / "README.md").write_text(text)
    for full in (True, False):
        assert list(verify(shard_set, full=full)) == [
            f"{shard_set / 'README.md'}: content changed; delete it, or write your own with 'data_files: shard-*.tar' in it"
        ]


def test_the_card_and_other_files_are_no_part_of_the_set(shard_set):
    (shard_set / "notes.txt").write_text("mine")
    (shard_set / "README.md").write_text("---\nconfigs:\n- data_files: shard-*.tar\n---\na card of the user's")
    assert list(verify(shard_set, full=True)) == []
    (shard_set / "README.md").unlink()
    assert list(verify(shard_set, full=True)) == []


def test_a_stray_shard_is_reported(shard_set):
    (shard_set / "shard-000009.tar").write_bytes(b"")
    assert list(verify(shard_set)) == [f"{shard_set}/shard-000009.tar: not part of this set, which has 4 shards"]
