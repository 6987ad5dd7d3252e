"""The columns of a large index, in a file that processes share."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from shards import column_file
from shards.columns import columns_in_memory
from shards.errors import ShardError
from shards.files import digest
from shards.index import ShardIndex, ShardReader
from shards.schema import INDEX
from tests.processes import PATIENCE_S, REPOSITORY
from tests.shard_sets import flip_bit
from tests.shards.sealed import edit_column, edit_record, reseal

NAMES = ["label", "shard", "offset", "size", "xxh3", "labels", "first", "count"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The folder of the files; sets of 45 images use it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(column_file, "MAPPED_ROWS", 45)
    return tmp_path / "cache" / "lrfr"


def columns(index):
    return {name: getattr(index, name) for name in NAMES}


def expected(root):
    index = ShardIndex(root)
    return vars(columns_in_memory(root / INDEX, index.manifest))


def is_mapped(index) -> bool:
    return not any(array.flags.writeable or array.flags.owndata for array in columns(index).values())


def check(index):
    """The columns are those of the Parquet file."""
    right = expected(index.root)
    for name, array in columns(index).items():
        assert array.dtype == right[name].dtype
        assert np.array_equal(array, right[name]), name


def only_file(cache) -> Path:
    (path,) = cache.glob("columns-*")
    return path


def test_columns_are_those_of_the_index_and_read_its_images(shard_set, cache, capsys):
    first, again = ShardIndex(shard_set), ShardIndex(shard_set)
    assert capsys.readouterr().err == f"{shard_set / INDEX}: writing its columns to {only_file(cache)}, once\n"
    for index in (first, again):
        assert is_mapped(index)
        check(index)
    assert sorted(path.name for path in cache.iterdir()) == [f"columns-{first.manifest.index_digest}", "columns.lock"]
    with ShardReader(again) as reader:
        assert reader.image(44)[:2] == b"\xff\xd8"
    assert pickle.loads(pickle.dumps(again.label)).tolist() == first.label.tolist()


def test_small_sets_are_read_into_memory(shard_set, cache, monkeypatch):
    monkeypatch.setattr(column_file, "MAPPED_ROWS", 46)
    assert not is_mapped(ShardIndex(shard_set))
    assert not cache.exists()


def test_a_set_without_hashes_in_its_index_takes_no_disk(shard_set, cache, monkeypatch):
    monkeypatch.setattr(column_file, "MIN_ROW_BYTES", 10_000)
    assert not is_mapped(ShardIndex(shard_set))
    assert not cache.exists()


def forged(path):
    """Other labels, with a header that fits them."""
    data = bytearray(path.read_bytes())
    header = json.loads(data[:4096])
    header.pop("digest")
    header["index"] = "0" * 16
    data[:4096] = json.dumps({**header, "digest": digest(header)}).encode().ljust(4096)
    path.write_bytes(data)


DAMAGES = {
    "truncated": lambda path: os.truncate(path, path.stat().st_size - 64),
    "empty": lambda path: os.truncate(path, 0),
    "too long": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "label": lambda path: flip_bit(path, 4096 + 3),
    "last count": lambda path: flip_bit(path, path.stat().st_size - 64),
    "header": lambda path: flip_bit(path, 20),
    "no header": lambda path: path.write_bytes(bytes(4096) + path.read_bytes()[4096:]),
    "of another index": forged,
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_damaged_is_made_again(shard_set, cache, damage):
    ShardIndex(shard_set)
    path = only_file(cache)
    whole = path.read_bytes()
    DAMAGES[damage](path)
    index = ShardIndex(shard_set)
    assert is_mapped(index)
    check(index)
    assert path.read_bytes() == whole


def enlarge(root):
    """Makes another set of it."""
    size = pq.read_table(root / INDEX)["size"]
    edit_column(root / INDEX, "size", pc.add(size, 1).cast(size.type))
    reseal(root)


def test_another_index_has_another_file(shard_set, cache):
    before = ShardIndex(shard_set).size.tolist()
    enlarge(shard_set)
    index = ShardIndex(shard_set)
    assert index.size.tolist() == [size + 1 for size in before]
    check(index)
    assert len(list(cache.glob("columns-*"))) == 2


def test_a_damaged_index_never_gives_wrong_rows(shard_set):
    before = columns(ShardIndex(shard_set))
    flip_bit(shard_set / INDEX, 900)
    for name, array in columns(ShardIndex(shard_set)).items():  # of the file
        assert np.array_equal(array, before[name])
    os.truncate(shard_set / INDEX, 900)
    with pytest.raises(ShardError, match="does not match the manifest"):
        ShardIndex(shard_set)
    (shard_set / INDEX).unlink()
    with pytest.raises(ShardError, match="No such file or directory"):
        ShardIndex(shard_set)


@pytest.mark.parametrize(("field", "value"), [("shards", 3), ("identities", 8)])
def test_a_manifest_that_states_too_little_is_refused_as_without_the_file(shard_set, monkeypatch, field, value):
    ShardIndex(shard_set)
    record = json.loads((shard_set / "manifest.json").read_bytes())
    files = dict(record["files"])
    if field == "shards":
        del files["shard-000003.done.json"]
    edit_record(shard_set / "manifest.json", **{field: value, "files": files})
    with pytest.raises(ShardError) as mapped:
        ShardIndex(shard_set)
    monkeypatch.setattr(column_file, "MAPPED_ROWS", 46)
    with pytest.raises(ShardError) as read:
        ShardIndex(shard_set)
    assert str(mapped.value) == str(read.value)


@pytest.mark.parametrize("name", ["../../../outside", "0" * 15, "0" * 15 + "\n", "0" * 17])
def test_an_invalid_digest_names_no_file(shard_set, cache, tmp_path, name):
    facts = json.loads((shard_set / "manifest.json").read_bytes())["files"]
    facts[INDEX]["xxh3"] = name
    edit_record(shard_set / "manifest.json", files=facts)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ShardError, match="does not match the manifest"):
        ShardIndex(shard_set)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("trouble", ["a file in place of the folder", "no space", "no home"])
def test_without_a_place_for_the_file_columns_are_in_memory(shard_set, cache, monkeypatch, capsys, trouble):
    where, reason = str(cache), "Not a directory"
    if trouble == "no space":
        reason = "No space left on device"
        monkeypatch.setattr(os, "posix_fallocate", lambda *args: _raise(OSError(errno.ENOSPC, reason)))
    elif trouble == "no home":
        where, reason = "~/.cache/lrfr", "Could not determine home directory."
        monkeypatch.setenv("XDG_CACHE_HOME", "relative/paths/are/ignored")
        monkeypatch.setattr(Path, "home", lambda: _raise(RuntimeError(reason)))
    else:
        cache.parent.write_text("")
    index = ShardIndex(shard_set)
    assert not is_mapped(index)
    check(index)
    assert f"columns cannot be kept in {where} ({reason}), so each process holds 0.0 GB" in capsys.readouterr().err
    assert not list(cache.glob("columns-*")) if cache.parent.is_dir() else True


def _raise(error):
    raise error


def test_a_file_of_another_user_is_not_trusted(shard_set, cache, monkeypatch, capsys):
    ShardIndex(shard_set)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    real = os.fstat
    monkeypatch.setattr(os, "fstat", lambda handle: _owned_by(real(handle), 54321))
    index = ShardIndex(shard_set)
    assert not is_mapped(index)
    assert "(the file there cannot be used)" in capsys.readouterr().err


def _owned_by(facts, user):
    values = list(facts)
    values[4] = user
    return os.stat_result(values)


def test_files_that_were_not_opened_for_long_are_deleted(shard_set, cache, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(shard_set, other)
    enlarge(other)
    cache.mkdir(parents=True)
    month = time.time() - 31 * 86400
    for name in ("columns-0123456789abcdef", "columns-fedcba9876543210", "mine"):
        (cache / name).write_text("")
        os.utime(cache / name, (month, month))
    os.utime(cache / "columns-fedcba9876543210")
    ShardIndex(shard_set)
    path = next(path for path in cache.glob("columns-*") if path.stat().st_size)
    os.utime(path, (month, month))
    ShardIndex(shard_set)  # which is use
    ShardIndex(other)
    assert path.exists()
    assert (cache / "mine").exists()
    assert (cache / "columns-fedcba9876543210").exists()
    assert not (cache / "columns-0123456789abcdef").exists()


OPEN = (
    "import sys; from shards import column_file, columns; column_file.MAPPED_ROWS = 45\n"
    "from shards.index import ShardIndex\n"
    "{before}\n"
    "index = ShardIndex(sys.argv[1]); print(int(index.size.sum()), index.label.flags.writeable)"
)


def started(root, before=""):
    words = [sys.executable, "-c", OPEN.format(before=before), str(root)]
    return subprocess.Popen(words, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_process_that_is_killed_while_it_writes_leaves_nothing_and_others_wait_for_it(shard_set, cache):
    stop = "import os, time\nread = column_file.read_columns\n"
    stop += "def slow(*args):\n    read(*args); print('written', flush=True); time.sleep(600)\ncolumn_file.read_columns = slow"
    killed = started(shard_set, stop)
    assert killed.stdout.readline() == "written\n"
    others = [started(shard_set) for _ in range(2)]
    time.sleep(0.3)
    assert not list(cache.glob("columns-????????????????"))
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    found = [process.communicate(timeout=PATIENCE_S) for process in others]
    assert sum("writing its columns" in err for _, err in found) == 1
    assert {out for out, _ in found} == {f"{ShardIndex(shard_set).size.sum()} False\n"}
    assert [path.name for path in cache.glob("columns-*")] == [only_file(cache).name]
    check(ShardIndex(shard_set))
