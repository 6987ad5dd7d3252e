"""The index in memory, and the reader of its images."""

from __future__ import annotations

import errno
import os
import re
import resource
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from shards.errors import ShardError
from shards.index import RESERVED_FILES, ShardIndex, ShardReader
from shards.schema import INDEX
from shards.verify import verify
from tests.shard_sets import flip_bit
from tests.shards.opening import memory_of_opening
from tools.costs import in_fresh_process
from tools.made_set import make_set


@pytest.fixture(params=["one chunk", "several"])
def opened(request, shard_set, monkeypatch):
    if request.param == "several":
        monkeypatch.setattr("shards.columns.CHUNK_ROWS", 7)
    return ShardIndex(shard_set)


def test_columns_equal_those_of_the_file(opened):
    table = pq.read_table(opened.root / INDEX)
    assert len(opened) == table.num_rows == 45
    for name in ("label", "shard", "offset", "size", "xxh3"):
        column, expected = getattr(opened, name), table[name].to_numpy()
        assert column.dtype == expected.dtype
        assert np.array_equal(column, expected)


def test_images_of_an_identity_are_adjacent(opened):
    labels, first, count = np.unique(opened.label, return_index=True, return_counts=True)
    for found, expected in ((opened.labels, labels), (opened.first, first), (opened.count, count)):
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)


def test_keys_are_found_in_any_row_group(shard_set, tmp_path, monkeypatch):
    monkeypatch.setattr("tools.made_set.CHUNK_ROWS", 20)
    make_set(shard_set, tmp_path / "made", 50)
    index = ShardIndex(tmp_path / "made")
    keys = pq.read_table(tmp_path / "made" / INDEX)["key"].to_pylist()
    assert [index.key(row) for row in range(50)] == keys
    with pytest.raises(IndexError):
        index.key(50)
    with pytest.raises(IndexError, match="row -1: the index has 50 rows"):
        index.key(-1)
    with pytest.raises(TypeError, match=r"^row is 'a', expected a whole number$"):
        index.key("a")


def test_opening_takes_little_more_memory_than_the_columns(shard_set, tmp_path):
    make_set(shard_set, tmp_path / "made", 200_000)
    rows, added, pandas = in_fresh_process(memory_of_opening, tmp_path / "made")
    assert rows == 200_000
    assert added < 60  # MB; the columns are 6
    assert not pandas


def test_an_index_that_does_not_match_the_manifest_is_refused(shard_set):
    flip_bit(shard_set / "index.parquet", 900)
    with pytest.raises(ShardError, match=r"index\.parquet: does not match the manifest"):
        ShardIndex(shard_set)


def test_an_unfinished_build_is_not_a_set(shard_set):
    (shard_set / "manifest.json").unlink()
    with pytest.raises(ShardError, match="an unfinished build; run build-shards again to resume it"):
        ShardIndex(shard_set)


def test_the_reader_reports_a_damaged_image(shard_set):
    index = ShardIndex(shard_set)
    row = 11
    path = shard_set / f"shard-{index.shard[row]:06d}.tar"
    flip_bit(path, int(index.offset[row]) + 40)
    with ShardReader(index) as reader, pytest.raises(ShardError) as error:
        reader.image(row)
    assert str(error.value) == (
        f"{path}: image {index.key(row)} at byte {index.offset[row]} is damaged: its xxh3 does not match; "
        f"run: lrfr verify --full {shard_set}"
    )


def test_the_reader_reports_a_missing_shard(shard_set):
    index = ShardIndex(shard_set)
    (shard_set / f"shard-{index.shard[0]:06d}.tar").unlink()
    with (
        ShardReader(index) as reader,
        pytest.raises(ShardError, match=r"No such file or directory; run: lrfr verify"),
    ):
        reader.image(0)


def test_more_shards_than_files_can_be_open(shard_set):
    index = ShardIndex(shard_set)
    with ShardReader(index) as reader:
        reader._max_open = 2
        for _ in range(2):
            assert all(reader.image(row)[:2] == b"\xff\xd8" for row in range(len(index)))
        assert len(reader._handles) <= 2


def test_a_truncated_shard_is_not_reported_as_a_hash_mismatch(shard_set):
    index = ShardIndex(shard_set)
    row = int(np.flatnonzero(index.shard == 1)[np.argmax(index.offset[index.shard == 1])])
    path = shard_set / "shard-000001.tar"
    os.truncate(path, int(index.offset[row]) + 10)
    with ShardReader(index) as reader, pytest.raises(ShardError) as error:
        reader.image(row)
    assert str(error.value) == (
        f"{path}: image {index.key(row)} at byte {index.offset[row]} is truncated: got 10 of {index.size[row]} bytes; "
        f"run: lrfr verify --full {shard_set}"
    )


def test_a_disk_that_fails_names_the_shard(shard_set, monkeypatch):
    def fails(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with ShardReader(ShardIndex(shard_set)) as reader:
        monkeypatch.setattr(os, "preadv", fails)
        with pytest.raises(OSError, match="Input/output error") as error:
            reader.image(0)
    assert re.fullmatch(rf"{shard_set}/shard-00000\d\.tar", error.value.filename)


def test_reading_leaves_the_limit_of_open_files_as_it_is(shard_set):
    index = ShardIndex(shard_set)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = (RESERVED_FILES + 3, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, low)
    try:
        with ShardReader(index) as reader:
            assert all(reader.image(row)[:2] == b"\xff\xd8" for row in range(len(index)))
            assert len(reader._handles) == 3
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == low
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_path_as_text_is_opened_and_an_index_shows_what_it_holds(shard_set):
    index = ShardIndex(str(shard_set))
    assert index.root == shard_set
    assert repr(index) == f"ShardIndex('{shard_set}': 45 images of 9 identities, 4 tars)"
    with pytest.raises(TypeError, match="expected a ShardIndex, such as ShardIndex"):
        ShardReader(str(shard_set))
    for root in (None, 5, bytes(shard_set)):
        with pytest.raises(TypeError) as error:
            ShardIndex(root)
        assert str(error.value).startswith("root is ")
        assert str(error.value).endswith(", expected a path, as text or pathlib.Path")


@pytest.mark.parametrize(
    ("row", "kind", "says"),
    [
        (10**6, IndexError, "row 1000000: the index has 45 rows"),
        (45, IndexError, "row 45: the index has 45 rows"),
        (-1, IndexError, "row -1: the index has 45 rows"),  # not the last one
        ("x", TypeError, "row is 'x', expected a whole number"),
        (1.0, TypeError, "row is 1.0, expected a whole number"),
        (None, TypeError, "row is None, expected a whole number"),
        (True, TypeError, "row is True, expected a whole number"),
        ([1, 2], TypeError, "row is [1, 2], expected a whole number"),
        (np.arange(2), TypeError, "row is a ndarray of int64 and shape (2,), expected a whole number"),
    ],
)
def test_an_invalid_row_is_refused(shard_set, row, kind, says):
    index = ShardIndex(shard_set)
    with ShardReader(index) as reader:
        for read in (reader.image, index.key):
            with pytest.raises(kind) as error:
                read(row)
            assert str(error.value) == says
        assert reader.image(np.int32(3)) == reader.image(3)


@pytest.mark.parametrize(
    ("rows", "kind", "says"),
    [
        ([1, 2], TypeError, "rows is [1, 2], expected an array of one or several whole numbers"),
        (np.array([]), TypeError, "rows is a ndarray of float64 and shape (0,), expected an array of one or several"),
        (np.array(["a"]), TypeError, "rows is a ndarray of <U1 and shape (1,), expected an array of one or several"),
        (np.array([0, 45]), IndexError, "row 45: the index has 45 rows"),
        (np.array([0, -1]), IndexError, "row -1: the index has 45 rows"),
    ],
)
def test_invalid_rows_are_refused(shard_set, rows, kind, says):
    with ShardReader(ShardIndex(shard_set)) as reader, pytest.raises(kind) as error:
        reader.padded(rows)
    assert str(error.value).startswith(says)


def test_a_buffer_that_is_too_small_is_refused_and_no_image_is_blamed(shard_set):
    with (
        ShardReader(ShardIndex(shard_set)) as reader,
        pytest.raises(ValueError, match=r"^buffer has 9 bytes, expected"),
    ):
        reader.padded(np.arange(2), np.empty(9, np.uint8))


@pytest.mark.parametrize(
    "buffer",
    [
        bytearray(10**6),
        np.zeros(10**6, np.float32),
        np.zeros((1, 10**6), np.uint8),
        np.zeros(10**6, np.uint8)[::2],
        np.frombuffer(bytes(10**6), np.uint8),
    ],
    ids=["bytes", "floats", "matrix", "strided", "read-only"],
)
def test_a_buffer_that_images_cannot_be_read_into_is_refused_and_no_image_is_blamed(shard_set, buffer):
    with (
        ShardReader(ShardIndex(shard_set)) as reader,
        pytest.raises(TypeError, match=r"^buffer is .*, expected a writable"),
    ):
        reader.padded(np.arange(2), buffer)


def test_the_url_of_a_set_is_not_taken_for_a_folder():
    for url in ("s3://lab/faces", Path("s3://lab/faces")):
        with pytest.raises(
            ShardError, match=r"^s3:/lab/faces: a URL, expected a folder; shards\.cache\.CachedSet opens"
        ):
            ShardIndex(url)


def test_images_are_padded_to_a_given_length(shard_set):
    index = ShardIndex(shard_set)
    rows, most = np.arange(3), int(index.size[:3].max())
    with ShardReader(index) as reader:
        longer = reader.padded(rows, longest=most + 5)
        assert np.array_equal(longer[:, :most], reader.padded(rows))
        assert longer.shape == (3, most + 5)
        assert not longer[:, most:].any()
        with pytest.raises(ValueError, match=f"longest is {most - 1}, expected at least {most}"):
            reader.padded(rows, longest=most - 1)


def test_the_kernel_hears_of_all_images_before_the_first_is_read(shard_set, monkeypatch):
    index, calls = ShardIndex(shard_set), []
    advise, read = os.posix_fadvise, os.preadv

    def record(handle, offset, size, advice):
        if advice == os.POSIX_FADV_WILLNEED:
            calls.append((offset, size))
        advise(handle, offset, size, advice)

    monkeypatch.setattr(os, "posix_fadvise", record)
    monkeypatch.setattr(os, "preadv", lambda *arguments: calls.append("read") or read(*arguments))
    rows = np.array([5, 3, 9])
    with ShardReader(index) as reader:
        reader.padded(rows)
        announced = list(zip(index.offset[rows].tolist(), index.size[rows].tolist(), strict=True))
        assert calls == [*announced, "read", "read", "read"]
        calls.clear()
        reader.image(3)
        assert calls == ["read"]


def test_a_reader_after_its_block_says_so_and_opens_nothing(shard_set):
    with ShardReader(ShardIndex(shard_set)) as reader:
        image = reader.image(0)
    before = len(os.listdir("/proc/self/fd"))
    for read in (lambda: reader.image(0), lambda: reader.padded(np.arange(2))):
        with pytest.raises(RuntimeError, match=r"^the reader is closed: read in its with block"):
            read()
    assert len(os.listdir("/proc/self/fd")) == before
    with reader:
        assert reader.image(0) == image


@pytest.mark.parametrize("name", ["index.parquet", "shard-000000.tar"])
def test_a_pipe_in_a_set_is_an_error_and_never_waited_for(shard_set, name):
    (shard_set / name).unlink()
    os.mkfifo(shard_set / name)
    with (
        pytest.raises(ShardError, match=rf"{name}: not a regular file; run: .* verify"),
        ShardReader(ShardIndex(shard_set)) as reader,
    ):
        reader.padded(np.arange(len(ShardIndex(shard_set))))
    assert any(line.startswith(f"{shard_set / name}: ") for line in verify(shard_set, full=True))
