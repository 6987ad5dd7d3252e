"""Damaged or forged shard sets: one named error in little time and memory, and nothing outside is read."""

from __future__ import annotations

import contextlib
import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.build import build
from pipeline.inspect import statistics
from shards.errors import LrfrError, ShardError
from shards.files import file_facts
from shards.index import ShardIndex
from shards.schema import Manifest
from shards.verify import verify
from shards.writer import done_record
from tests.shard_sets import build_options
from tests.shards.sealed import edit_column, edit_record, reseal

DEEP = b"[" * 100_000


def found_by(root, full=True):
    """What ``verify`` finds, without the paths of folders."""
    try:
        return [problem.replace(f"{root}/", "") for problem in verify(root, full=full)]
    except ShardError as error:
        return [str(error).replace(f"{root}/", "")]


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("shards", 10**12, "5 files, 1000000000000 shards"),
        ("shards", "4", "shards is '4', expected an integer from 0"),
        ("shards", True, "shards is True, expected an integer from 0"),
        ("images", -1, "images is -1, expected an integer from 0"),
        ("images", 0, "a set without images, shards or identities"),
        ("identities", 0, "a set without images, shards or identities"),
        ("source", None, "source is None, expected of type str"),
        ("files", [], "files is [], expected of type dict"),
        ("files", {}, "0 files, 4 shards"),
        ("files", {str(number): {} for number in range(5)}, "index.parquet is missing, expected of type dict"),
        ("statuses", {"ok": 1.5}, "ok is 1.5, expected an integer from 0"),
        ("versions", {"opencv": []}, "opencv is [], expected of type str"),
        ("preprocessing", ..., "preprocessing is missing, expected of type dict"),
        ("unheard", 1, "unknown field unheard"),
    ],
)
def test_a_manifest_with_wrong_fields_is_refused(shard_set, name, value, reason):
    edit_record(shard_set / "manifest.json", **{name: value})
    with pytest.raises(ShardError) as error:
        ShardIndex(shard_set)
    assert str(error.value).startswith(f"{shard_set}/manifest.json: {reason}")
    assert found_by(shard_set) == [str(error.value).replace(f"{shard_set}/", "")]


@pytest.mark.parametrize("facts", [{}, {"size": "x"}, {"size": -1, "xxh3": "", "sha256": ""}, None])
def test_a_manifest_with_wrong_facts_of_a_file_is_refused(shard_set, facts):
    files = {**Manifest.read(shard_set).files, "shard-000001.done.json": facts}
    edit_record(shard_set / "manifest.json", files=files)
    with pytest.raises(ShardError, match=r"manifest\.json: (size|shard-000001\.done\.json) is "):
        Manifest.read(shard_set)


@pytest.mark.parametrize(
    "fields", [{"size": 10**400}, {"mean": 10**400}, {"size": 1 << 20}, {"std": "x"}, {"size": []}]
)
def test_a_manifest_with_a_wild_spec_is_refused(shard_set, fields):
    edit_record(shard_set / "manifest.json", preprocessing={**Manifest.read(shard_set).preprocessing, **fields})
    with pytest.raises(LrfrError, match=f"preprocessing spec: {next(iter(fields))} is "):
        statistics(shard_set)


@pytest.mark.parametrize(
    "fields",
    [
        {"files": ...},
        {"files": {}},
        {"files": 3},
        {"shard": 1},
        {"statuses": {"ok": "x"}},
        {"statuses": ...},
        {"rows": None},
        {"fingerprint": 7},
    ],
)
def test_a_done_record_with_wrong_fields_is_reported_and_built_again(shard_set, vggface2, fields):
    path = shard_set / "shard-000000.done.json"
    good, manifest = path.read_bytes(), Manifest.read(shard_set)
    edit_record(path, **fields)
    files = {**manifest.files, path.name: file_facts(path)}
    edit_record(shard_set / "manifest.json", files=files)
    (problem,) = found_by(shard_set)
    assert problem.startswith("shard-000000.done.json: ")
    assert done_record(shard_set, 0, manifest.fingerprint) is None
    path.write_bytes(good)
    assert done_record(shard_set, 0, manifest.fingerprint)["shard"] == 0


def test_a_done_record_never_leads_outside(shard_set, monkeypatch):
    secret = shard_set.parent / "secret.txt"
    secret.write_text("secret")
    path = shard_set / "shard-000000.done.json"
    record = json.loads(path.read_bytes())
    edit_record(path, files={**record["files"], "../secret.txt": file_facts(secret), str(secret): file_facts(secret)})
    edit_record(shard_set / "manifest.json", files={**Manifest.read(shard_set).files, path.name: file_facts(path)})
    opened = []
    monkeypatch.setattr("shards.verify.file_facts", lambda path: opened.append(path) or file_facts(path))
    (problem,) = found_by(shard_set)
    assert problem.startswith("shard-000000.done.json: belongs to another shard, or names other files")
    assert opened
    assert {path.parent for path in opened} == {shard_set}
    assert done_record(shard_set, 0, record["fingerprint"]) is None


def test_the_plan_and_the_records_of_another_build_are_reported(shard_set, vggface2, tmp_path):
    other = tmp_path / "other"
    build(build_options(vggface2, other, min_images=2))
    shutil.copy(other / "plan.json", shard_set / "plan.json")
    assert found_by(shard_set) == ["plan.json: the plan of another build (its fingerprint differs from the manifest's)"]
    shutil.copy(other / "shard-000001.done.json", shard_set)
    reseal(shard_set)
    assert "shard-000001.done.json: the record of another build" in "\n".join(found_by(shard_set))


@pytest.mark.parametrize("content", [DEEP, b'{"a":' * 100_000, b"[]", b'"x"', b"{}", b"\xff\xfe", b"", b"1" * 5000])
@pytest.mark.parametrize("name", ["manifest.json", "plan.json", "shard-000002.done.json"])
def test_invalid_records_are_named(shard_set, vggface2, name, content):
    (shard_set / name).write_bytes(content)
    if name != "manifest.json":
        edit_record(
            shard_set / "manifest.json",
            files={
                **Manifest.read(shard_set).files,
                "shard-000002.done.json": file_facts(shard_set / "shard-000002.done.json"),
            },
        )
    (problem,) = found_by(shard_set)
    assert problem.startswith(f"{name}: damaged, or not a JSON record of this tool; build again into an empty --out")


def test_a_plan_of_the_wrong_types_stops_a_build(shard_set, vggface2):
    options = build_options(vggface2, shard_set)
    for fields in ({"parts": []}, {"root": 3}, {"parts": ...}):
        edit_record(shard_set / "plan.json", **fields)
        with pytest.raises(ShardError, match=r"plan\.json: (parts|root) is "):
            build(options)


@pytest.mark.parametrize("kind", ["folder", "pipe", "dangling link"])
@pytest.mark.parametrize(
    "name", ["manifest.json", "plan.json", "index.parquet", "shard-000001.tar", "shard-000001.idx"]
)
def test_what_is_no_file_is_reported(shard_set, name, kind):
    path = shard_set / name
    path.unlink()
    make = {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path), "dangling link": lambda: path.symlink_to("nowhere")}
    make[kind]()
    assert len(found_by(shard_set)) == 1
    if "shard" not in name and name != "plan.json":
        with pytest.raises(ShardError, match=name):
            ShardIndex(shard_set)


def damaged_text(column):
    """Strings that are not UTF-8."""
    texts = [b"\xff\xfe" + text.encode() for text in column.to_pylist()]
    offsets = np.cumsum([0, *map(len, texts)], dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), len(texts), [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(texts))])


def with_row(value, row=3):
    def change(column):
        values = column.to_pylist()
        values[row] = value
        return pa.array(values, column.type)

    return change


INDEX_CHANGES = {
    "no label": ("label", lambda column: None),
    "no key": ("key", lambda column: None),
    "labels of another type": ("label", lambda column: column.cast(pa.int64())),
    "labels as text": ("label", lambda column: column.cast(pa.string())),
    "offsets as fractions": ("offset", lambda column: column.cast(pa.float64())),
    "a negative label": ("label", with_row(-1)),
    "a label beyond the identities": ("label", with_row(9, row=-1)),
    "labels out of order": ("label", with_row(8)),
    "an unknown shard": ("shard", with_row(4)),
    "a negative shard": ("shard", with_row(-1)),
    "a negative offset": ("offset", with_row(-512)),
    "an offset beyond every file": ("offset", with_row(2**63 - 1)),
    "a size of 2 GiB": ("size", with_row(2**31 - 1)),
    "an empty image": ("size", with_row(0)),
    "a missing offset": ("offset", with_row(None)),
}


@pytest.mark.parametrize("name", INDEX_CHANGES)
def test_an_index_with_wrong_columns_or_odd_values_is_refused(shard_set, name):
    column, change = INDEX_CHANGES[name]
    path = shard_set / "index.parquet"
    edit_column(path, column, change(pq.read_table(path)[column].combine_chunks()))
    reseal(shard_set)
    assert any(problem.startswith("index.parquet: ") for problem in found_by(shard_set))
    if name != "no key":
        with pytest.raises(ShardError, match=r"index\.parquet: "):
            ShardIndex(shard_set)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" * 3, b"x" * 1000])
def test_an_index_that_is_no_parquet_file_is_refused(shard_set, content):
    (shard_set / "index.parquet").write_bytes(content)
    with pytest.raises(ShardError, match=r"index\.parquet: does not match the manifest"):
        ShardIndex(shard_set)
    reseal(shard_set)
    with pytest.raises(ShardError, match=r"index\.parquet: cannot be read"):
        ShardIndex(shard_set)
    assert [problem.partition(":")[0] for problem in found_by(shard_set)] == ["index.parquet"]


@pytest.mark.parametrize(
    ("name", "reason"), [("manifest.json", "damaged, or not a JSON"), ("index.parquet", "does not match")]
)
def test_a_file_of_another_size_is_not_read(shard_set, name, reason, monkeypatch):
    with open(shard_set / name, "r+b") as stream:
        stream.truncate(1 << 40)  # takes no disk
    monkeypatch.setattr("shards.columns.quick_digest", lambda path: pytest.fail("the file is read"))
    with pytest.raises(ShardError, match=rf"{name}: {reason}"):
        ShardIndex(shard_set)


def test_an_index_with_fewer_rows_or_identities_than_stated_is_refused(shard_set):
    path = shard_set / "index.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 40), path)
    reseal(shard_set)
    with pytest.raises(ShardError, match=r"index\.parquet: 40 rows, the manifest states 45 images"):
        ShardIndex(shard_set)
    pq.write_table(table, path)
    edit_record(shard_set / "manifest.json", identities=10**9)
    reseal(shard_set)
    with pytest.raises(ShardError, match=r"index\.parquet: 9 identities, the manifest states 1000000000"):
        ShardIndex(shard_set)


@pytest.mark.parametrize("name", ["index.parquet", "shard-000001.parquet"])
def test_keys_that_are_not_utf_8_are_reported_and_shown(shard_set, name):
    path = shard_set / name
    edit_column(path, "key", damaged_text(pq.read_table(path)["key"].combine_chunks()))
    reseal(shard_set)
    assert any(problem.startswith(f"{name}: ") for problem in found_by(shard_set))
    if name == "index.parquet":
        assert ShardIndex(shard_set).key(0).startswith("\\xff\\xfen")


@pytest.mark.parametrize("name", ["status", "key", "offset", "landmarks"])
def test_rows_of_a_shard_with_wrong_columns_are_reported(shard_set, name):
    path = shard_set / "shard-000001.parquet"
    edit_column(path, name, pa.array([None] * pq.read_metadata(path).num_rows, pa.int16()))
    reseal(shard_set)
    assert any(problem.startswith("shard-000001.parquet: ") for problem in found_by(shard_set))


def test_stored_rows_without_a_position_are_reported(shard_set):
    path = shard_set / "shard-000001.parquet"
    edit_column(path, "offset", with_row(None)(pq.read_table(path)["offset"].combine_chunks()))
    pq.write_table(pq.read_table(path).cast(pq.read_schema(shard_set / "shard-000000.parquet")), path)
    reseal(shard_set)
    assert "shard-000001.parquet: the position of a stored image is missing" in found_by(shard_set)


def test_a_build_that_goes_on_refuses_changed_rows(vggface2, tmp_path):
    shard_set = tmp_path / "set"
    build(build_options(vggface2, shard_set))
    path = shard_set / "shard-000001.parquet"
    good = path.read_bytes()
    (shard_set / "manifest.json").unlink()
    for position in (40, len(good) // 2, len(good) - 40):
        data = bytearray(good)
        data[position] ^= 4
        path.write_bytes(data)
        with pytest.raises(
            ShardError, match=r"shard-000001\.parquet: content changed .*delete shard-000001\.done\.json"
        ):
            build(build_options(vggface2, shard_set))
    (shard_set / "shard-000001.done.json").unlink()
    build(build_options(vggface2, shard_set))
    assert path.read_bytes() == good
    assert found_by(shard_set) == []


def flips(root, count, seed):
    """Changes one bit of each file in turn, ``count`` in all, and yields its path; restores the file afterwards."""
    rng = np.random.default_rng(seed)
    paths = sorted(path for path in root.iterdir() if path.is_file())
    assert len(paths) == 20
    for number in range(count):
        path = paths[number % len(paths)]
        good = path.read_bytes()
        data = bytearray(good)
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        yield path
        path.write_bytes(good)


@pytest.mark.parametrize(("count", "seed"), [(80, 0), pytest.param(4000, 1, marks=pytest.mark.heavy)])
def test_every_flipped_bit_is_found(shard_set, count, seed):
    tried = 0
    for path in flips(shard_set, count, seed):
        if path.suffix != ".tar":
            assert any(path.name in problem for problem in found_by(shard_set, full=False)), path.name
        assert any(path.name in problem for problem in found_by(shard_set)), path.name
        tried += 1
    assert tried == count


@pytest.mark.parametrize(("count", "seed"), [(60, 0), pytest.param(1000, 1, marks=pytest.mark.heavy)])
def test_flipped_bits_of_consistent_sets_give_named_errors(shard_set, tmp_path, count, seed):
    """The digests are renewed after the flip: every parser reads what is in the file."""
    tried = 0
    for path in flips(shard_set, count, seed):
        if path.suffix == ".json":
            continue
        scratch = tmp_path / "scratch"
        shutil.copytree(shard_set, scratch, copy_function=os.link)
        for record in scratch.glob("*.json"):
            data = record.read_bytes()
            record.unlink()
            record.write_bytes(data)
        reseal(scratch)
        for reader in (found_by, statistics):
            with contextlib.suppress(LrfrError):
                assert reader(scratch) is not None
        shutil.rmtree(scratch)
        tried += 1
    assert tried > count // 2
