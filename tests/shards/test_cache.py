"""CachedSet: a set of an object store, read through a bounded folder of this machine."""

from __future__ import annotations

import concurrent.futures
import errno
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from shards.cache import CachedSet
from shards.cache_folder import CacheFolder, as_bytes, size_text
from shards.errors import ShardError
from shards.files import file_facts, read_record
from shards.index import ShardIndex, ShardReader
from shards.store import Store, StoreError
from tests.object_store import Fault
from tests.processes import REPOSITORY, wait_until
from tests.shard_sets import flip_bit
from tests.shards.sealed import edit_record

URL = "s3://faces/sets/small"
SHARDS = 12


@pytest.fixture
def local(stored_shards):
    """The same set in a folder."""
    return ShardIndex(stored_shards)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def read_all(index, rows=None):
    with ShardReader(index) as reader:
        return reader.padded(np.arange(len(index)) if rows is None else rows)


def tars(cache):
    return sorted(cache.rglob("*.tar"))


def leftovers(cache):
    return [path for path in cache.rglob("*") if path.is_file() and path.suffix not in (".tar", ".json", ".parquet")]


def rows_of(index, shards):
    """One row of each of these shards."""
    return np.array([np.flatnonzero(index.shard == shard)[0] for shard in shards])


def size_for(index, count):
    """The size of a cache that holds index, records and ``count`` tars of the set."""
    with CachedSet(URL, folder=index.root.parent / "throwaway"):
        pass
    small = sum(path.stat().st_size for path in index.root.iterdir() if path.suffix in (".json",))
    return (
        small + (index.root / "index.parquet").stat().st_size + count * max(p.stat().st_size for p in tars(index.root))
    )


def test_images_are_those_of_a_folder_and_every_file_comes_once(local, object_store, cache):
    with CachedSet(URL, folder=cache) as index:
        assert sorted(path.name for path in cache.glob("*/*")) == ["index.parquet", "manifest.json"]
        assert np.array_equal(index.cache.tar_bytes, [path.stat().st_size for path in tars(local.root)])
        assert np.array_equal(read_all(index), read_all(local))
    assert len(tars(cache)) == object_store.count("GET", ".tar") == SHARDS
    assert object_store.count("GET", "list-type") == 0
    assert object_store.count("GET") == 2 + 2 * SHARDS  # manifest, index; of each shard tar and record
    assert leftovers(cache) == []
    object_store.requests.clear()
    with CachedSet(URL, folder=cache) as index:
        assert np.array_equal(read_all(index), read_all(local))
    assert object_store.count("GET") == 1


def test_opening_costs_two_requests_whatever_the_number_of_objects(local, object_store, cache):
    object_store.fill("sets/small/more", 1100)
    with CachedSet(URL, folder=cache):
        pass
    assert object_store.count("GET") == 2
    assert len(Store(URL).list()) == 1100 + 4 * SHARDS + 4
    assert object_store.count("GET", "list-type") == 2


@pytest.mark.parametrize("kind", ["503", "cut", "flip", pytest.param("slow", marks=pytest.mark.heavy)])
def test_trouble_of_the_store_passes(local, object_store, cache, monkeypatch, kind):
    monkeypatch.setattr("shards.connection.READ_TIMEOUT_S", 1 if kind == "slow" else 60)
    object_store.faults[:] = [
        Fault(kind, "GET", name, times=2) for name in ("000003.tar", "000005.done", "index.parquet")
    ]
    with CachedSet(URL, folder=cache) as index:
        assert np.array_equal(read_all(index), read_all(local))
    assert leftovers(cache) == []
    assert [fault.times for fault in object_store.faults] == [0, 0, 0]


def test_a_wrong_tar_in_the_store_is_an_error_where_it_is_read(local, object_store, cache):
    key = "sets/small/shard-000002.tar"
    data = bytearray(object_store.get(key))
    data[700] ^= 1
    object_store.put(key, bytes(data))
    with CachedSet(URL, folder=cache) as index:
        read_all(index, np.flatnonzero(index.shard != 2))
        with pytest.raises(StoreError, match=r"^s3://faces/sets/small/shard-000002.tar: its content .*SHA-256"):
            read_all(index)
    assert leftovers(cache) == []
    assert len(tars(cache)) == SHARDS - 1


def test_a_tar_that_is_gone_is_named(local, object_store, cache):
    object_store.delete("sets/small/shard-000002.tar")
    with (
        CachedSet(URL, folder=cache) as index,
        pytest.raises(StoreError, match=r"^s3://faces/sets/small/shard-000002.tar: not found"),
    ):
        read_all(index)


def test_what_changes_in_the_cache_is_fetched_again(local, object_store, cache):
    """A bit, a length, and index and manifest of another content."""
    with CachedSet(URL, folder=cache) as index:
        read_all(index)
        root = index.root
    object_store.requests.clear()
    flip_bit(root / "shard-000001.tar", int(index.offset[index.shard == 1][0]) + 50)
    os.truncate(root / "shard-000002.tar", 1000)
    flip_bit(root / "index.parquet", 300)
    flip_bit(root / "manifest.json", 30)
    with CachedSet(URL, folder=cache) as index:
        assert np.array_equal(read_all(index), read_all(local))
    assert object_store.count("GET", ".tar") == 2
    assert object_store.count("GET") == 2 + 2 * 2
    assert all((root / path.name).read_bytes() == path.read_bytes() for path in tars(local.root))


def test_an_image_that_stays_damaged_is_named(local, cache, monkeypatch):
    with CachedSet(URL, folder=cache) as index:
        index.xxh3[5] += 1
        with pytest.raises(
            ShardError, match=r"^s3://faces/sets/small/shard-.* is damaged: its xxh3 .* verify --full s3:"
        ):
            read_all(index)


def test_the_cache_stays_within_its_size_and_keeps_what_was_used_last(local, object_store, cache):
    size = size_for(local, 5)
    object_store.requests.clear()
    with CachedSet(URL, folder=cache, size=size) as index, ShardReader(index) as reader:
        for shard in range(SHARDS):
            reader.padded(rows_of(index, [shard]))
            index.cache._seen[:] = -np.inf  # the next use is noted
            reader.padded(rows_of(index, [0]))
            assert sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) <= size
        assert len(tars(cache)) >= 4
        assert {path.name for path in tars(cache)} >= {"shard-000000.tar", "shard-000010.tar", "shard-000011.tar"}
        assert object_store.count("GET", ".tar") == SHARDS
        there = {int(path.stem.removeprefix("shard-")) for path in tars(cache)}
        assert {0, 11} <= set(reader._handles) <= there  # a deleted tar that is open takes room
        assert np.array_equal(read_all(index), read_all(local))


def test_a_cache_that_is_too_small(local, cache):
    with pytest.raises(ShardError) as caught, CachedSet(URL, folder=cache, size=20_000):
        pass
    assert str(caught.value).startswith(f"{cache}: the cache has room for 20.0 KB, but needs ")
    assert str(caught.value).endswith("; raise --cache-size, or choose a --cache-folder on a larger disk")


def test_a_full_disk_has_a_remedy(local, cache, monkeypatch):
    def full(*words):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with CachedSet(URL, folder=cache) as index:
        monkeypatch.setattr("shards.store.Store._receive", full)
        with pytest.raises(ShardError) as caught:
            read_all(index)
    assert str(caught.value) == (
        f"{cache}: no space left on its disk (No space left on device); free some, lower --cache-size, or choose a"
        " --cache-folder on another disk"
    )
    wait_until(lambda: leftovers(cache) == [])


READ = f"""
import sys
import numpy as np
from shards.cache import CachedSet
from shards.index import ShardReader
with CachedSet({URL!r}, folder=sys.argv[1]) as index, ShardReader(index) as reader:
    print(len(reader.padded(np.arange(len(index)))))
"""


def start(cache):
    return subprocess.Popen([sys.executable, "-c", READ, cache], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)


def test_two_processes_share_a_cache_and_fetch_nothing_twice(local, object_store, cache):
    processes = [start(cache) for _ in range(2)]
    assert [process.communicate()[0] for process in processes] == ["45\n", "45\n"]
    assert object_store.count("GET", ".tar") == len(tars(cache)) == SHARDS
    assert object_store.count("GET", "index.parquet") == 1


def test_two_readers_of_a_process_fetch_nothing_twice(local, object_store, cache):
    def read(_):
        with CachedSet(URL, folder=cache) as index:
            return read_all(index)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first, second = pool.map(read, range(2))
    assert np.array_equal(first, second)
    assert object_store.count("GET", ".tar") == SHARDS


def test_a_process_that_is_killed_leaves_nothing_that_is_used(local, object_store, cache):
    """Others wait for what it fetches, and take over when it is gone."""
    object_store.faults[:] = [Fault("hold", "GET", ".tar", times=1)]
    process = start(cache)
    wait_until(lambda: len(tars(cache)) == SHARDS - 1)
    (partial,) = leftovers(cache)
    assert partial.stat().st_size > 512
    with CachedSet(URL, folder=cache) as index:
        assert partial.exists()  # it is being fetched
        process.send_signal(signal.SIGKILL)
        process.wait()
        object_store.faults.clear()
        assert np.array_equal(read_all(index), read_all(local))
    assert leftovers(cache) == []
    assert object_store.count("GET", ".tar") == SHARDS + 1


def test_leftovers_of_a_killed_process_are_removed_by_the_next(local, cache):
    with CachedSet(URL, folder=cache) as index:
        (index.root / "shard-000007.tar.fetching").write_bytes(b"half")
        foreign = cache / "photographs"
        foreign.mkdir()
        (foreign / "shard-000000.tar").write_bytes(b"mine")
        old = index.root.with_name(f"old-1.lrfr-set-{'0' * 16}")
        old.mkdir()
        (old / "index.parquet").write_bytes(b"of a set whose tars were deleted")
    with CachedSet(URL, folder=cache) as index:
        assert leftovers(cache) == []
        assert not old.exists()
        assert (foreign / "shard-000000.tar").read_bytes() == b"mine"


@pytest.mark.parametrize("may_read", [True, False])
def test_sets_of_another_user_stay(local, object_store, cache, monkeypatch, may_read):
    size = size_for(local, 6)
    with CachedSet(URL, folder=cache, size=size) as index:
        folder = index.root
    others = [folder.with_name(f"{name}.lrfr-set-{'0' * 16}") for name in ("full", "empty")]
    for other in others:
        other.mkdir()
        (other / "manifest.json").write_bytes(b"{}")
    (others[0] / "shard-000000.tar").write_bytes(bytes(2000))
    os.utime(others[0] / "shard-000000.tar", (0, 0))  # the first to be deleted, were it ours
    for name in ("listdir", "scandir"):
        monkeypatch.setattr(f"shards.cache_folder.os.{name}", refusing(getattr(os, name), [] if may_read else others))
    kinds = os.W_OK | (0 if may_read else os.R_OK | os.X_OK)
    monkeypatch.setattr("shards.cache_folder.os.access", lambda path, kind: not (path in others and kind & kinds))
    with CachedSet(URL, folder=cache, size=size) as index:
        assert np.array_equal(read_all(index), read_all(local))
    monkeypatch.undo()
    assert (others[0] / "shard-000000.tar").exists()
    assert others[1].exists()
    assert len(tars(folder)) < SHARDS


def refusing(function, paths):
    def refused(path="."):
        if path in paths:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return function(path)

    return refused


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"sha256": []}, "states no SHA-256 of its tar; build the set again"),
        ({"sha256": None}, "states no SHA-256 of its tar; build the set again"),
        ({"size": "\x1b[2J"}, r"states '\\x1b\[2J' bytes for its tar, by the index it has \d+; build the set again"),
        ({"size": 1e99}, r"states 1e\+99 bytes for its tar, by the index it has \d+; build the set again"),
    ],
)
def test_forged_records_are_refused(local, object_store, cache, tmp_path, facts, says):
    hostile = tmp_path / "hostile"
    shutil.copytree(local.root, hostile)
    done = hostile / "shard-000002.done.json"
    files = read_record(done)["files"]
    edit_record(done, files={**files, "shard-000002.tar": {**files["shard-000002.tar"], **facts}})
    manifest = hostile / "manifest.json"
    edit_record(manifest, files={**read_record(manifest)["files"], done.name: file_facts(done)})
    object_store.copy("sets/small", hostile)
    with CachedSet(URL, folder=cache) as index, pytest.raises(ShardError, match=f"shard-000002.done.json: {says}$"):
        read_all(index)


def test_a_record_of_gigabytes_is_not_read(local, object_store, cache, monkeypatch):
    monkeypatch.setattr("shards.cache.MAX_RECORD_BYTES", 10_000)
    size = (local.root / "shard-000002.done.json").stat().st_size
    with CachedSet(URL, folder=cache) as index:
        monkeypatch.setattr("shards.cache.MAX_RECORD_BYTES", size - 1)
        says = r"done.json: \d+ B, which no record has; build the set again$"
        with pytest.raises(ShardError, match=says):
            read_all(index)
    assert object_store.count("GET", "shard-000002.done.json") == 0


def test_closing_does_not_wait_for_a_slow_store(local, object_store, cache):
    object_store.faults[:] = [Fault("hold", "GET", ".tar", times=99)]
    with CachedSet(URL, folder=cache) as index:
        index.cache.want(np.arange(SHARDS))
        wait_until(lambda: len(leftovers(cache)) > 1)
        reader = ShardReader(index)
        reader.cancel()
        with pytest.raises(RuntimeError, match="was closed while a tar was on its way"):
            reader.padded(np.arange(3))
    object_store.faults.clear()


@pytest.mark.parametrize(
    ("text", "count"),
    [("1000", 1000), ("50G", 50 * 10**9), ("1.5 TB", 15 * 10**11), ("2GiB", 2 << 30), ("8k", 8000), ("3B", 3)],
)
def test_sizes_as_text(text, count):
    assert as_bytes(text) == count


@pytest.mark.parametrize(
    "text", ["", "G", "-1G", "1i", "5X", "1e9", "50 G G", "0", "0.2", "0G", "9" * 400 + "T", "5000000000T"]
)
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="is not a size; expected a number of bytes with a unit, such as 800M"):
        as_bytes(text)


def test_sizes_are_shown_with_three_digits():
    counts = [0, 999, 1000, 12_345_678, 999_499_999_999, 160 * 10**9, 42 * 10**12]
    assert list(map(size_text, counts)) == ["0 B", "999 B", "1.0 KB", "12.3 MB", "999 GB", "160 GB", "42.0 TB"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    line = rf"^{tmp_path}/file/cache cannot be made: Not a directory; choose another --cache-folder$"
    with pytest.raises(ShardError, match=line):
        CacheFolder(tmp_path / "file" / "cache")
