"""verify of a shard set in an object store."""

from __future__ import annotations

import pytest

from shards.attempts import in_flight
from shards.schema import INDEX, MANIFEST, PLAN
from shards.store import Store
from tests.processes import error_of
from tests.shard_sets import flip_bit

URL = "s3://faces/sets/one"


@pytest.fixture
def stored(object_store, shard_set):
    """The shard set, and its folder: what the test changes there it uploads again."""
    store = Store(URL)
    list(in_flight(lambda path: store.upload(path, path.name), sorted(shard_set.iterdir())))
    object_store.requests.clear()
    return store


def test_a_sound_set_costs_one_listing_and_its_small_files(stored, object_store, run):
    process = run("verify", URL)
    line = f"{URL}: valid; 45 images, 4 shards (of the tars only the sizes; --full reads every byte)\n"
    assert (process.returncode, process.stdout) == (0, line)
    assert object_store.count("GET", "list-type") == 1
    assert object_store.count("GET", ".tar") == 0
    object_store.requests.clear()
    assert run("verify", "--full", URL).stdout == f"{URL}: valid; 45 images, 4 shards\n"
    assert object_store.count("GET", ".tar") == 4
    assert object_store.count("GET", "list-type") == 1


def test_damage_is_found_as_in_a_folder(stored, shard_set, run, tmp_path):
    """The same problems in the same words, but for the names."""
    flip_bit(shard_set / "shard-000000.tar", 600)
    (shard_set / "shard-000001.tar").write_bytes((shard_set / "shard-000001.tar").read_bytes()[:-512])
    flip_bit(shard_set / "shard-000002.parquet", 20)
    (shard_set / "shard-000003.idx").unlink()
    (shard_set / "shard-000009.tar").write_bytes(b"")
    flip_bit(shard_set / INDEX, 30)
    stored.delete(["shard-000003.idx"])
    for path in shard_set.iterdir():
        stored.upload(path, path.name)
    for words in ((), ("--full",)):
        found, expected = run("verify", *words, URL), run("verify", *words, shard_set)
        assert found.stdout == expected.stdout.replace(str(shard_set), URL)
        assert len(found.stdout.splitlines()) >= 5
        assert error_of(found).replace(URL, "") == error_of(expected).replace(str(shard_set), "")


def test_what_is_no_finished_set(stored, run):
    begun = "is an unfinished build; run build-shards again to resume it"
    stored.delete([MANIFEST])
    assert error_of(run("verify", URL)) == f"Error: {URL}/manifest.json: not found; {URL} {begun}"
    stored.delete([PLAN])
    assert error_of(run("verify", URL)) == f"Error: {URL}/manifest.json: not found; {URL} is not a shard set"
    assert error_of(run("verify", f"{URL}/x")).endswith(f"{URL}/x is empty")
    assert error_of(run("verify", "s3://"), 2).endswith("expected a URL such as s3://bucket/folder, of s3 or gs")


def test_a_damaged_manifest_is_named_by_its_url(stored, shard_set, run):
    flip_bit(shard_set / MANIFEST, 50)
    stored.upload(shard_set / MANIFEST, MANIFEST)
    assert error_of(run("verify", URL)).startswith(f"Error: {URL}/manifest.json: damaged")
