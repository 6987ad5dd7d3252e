"""Shard sets that are built into an object store: as in a folder, whatever happens on the way."""

from __future__ import annotations

import json
import os
import shutil

import obstore.store
import pytest

from pipeline.build import Part, build, build_part, finish_build
from pipeline.build.stored_build import StoredBuild
from shards.errors import LockedError, ShardError
from shards.locks import locked
from shards.schema import INDEX, LANDMARKS, MANIFEST, PLAN, Manifest
from shards.store import PART_BYTES, Store, StoreError
from tests.object_store import Fault
from tests.processes import error_of
from tests.shard_sets import build_options

URL = "s3://faces/sets/one"
FILES = 4 * 4 + 4  # of four shards, with plan, index, card and manifest


@pytest.fixture
def options(object_store, vggface2, tmp_path):
    return build_options(vggface2, tmp_path / "staging", store=Store(URL))


@pytest.fixture
def in_folder(vggface2, tmp_path):
    """The same set in a folder: content by name."""
    out = tmp_path / "local"
    build(build_options(vggface2, out))
    content = {path.name: path.read_bytes() for path in out.iterdir()}
    assert len(content) == FILES
    return content


def stored(object_store):
    return object_store.content("sets/one")


def uploads(object_store):
    return [path.rpartition("/")[2] for method, path, _ in object_store.requests if method == "PUT"]


def test_a_set_in_a_store_equals_one_in_a_folder(options, object_store, in_folder):
    assert build(options) == Manifest.read(options.out.parent / "local")
    assert stored(object_store) == in_folder
    assert not options.out.exists()
    names = uploads(object_store)
    assert (names[0], names[-1]) == (PLAN, MANIFEST)
    assert sorted(names) == sorted(in_folder)
    for shard in range(4):
        assert names.index(f"shard-{shard:06d}.done.json") > names.index(f"shard-{shard:06d}.tar")


@pytest.fixture
def google(object_store, monkeypatch):
    """The same server for gs:// URLs: Google's XML protocol is that of S3, as far as obstore uses it."""
    key = {"gcs_base_url": object_store.url, "disable_oauth": True}
    key |= dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", json.dumps(key))

    def without_tls(url, *, client_options, **options):
        return obstore.store.GCSStore.from_url(url, client_options=client_options | {"allow_http": True}, **options)

    monkeypatch.setattr("obstore.store.from_url", without_tls)
    object_store.is_google = True


@pytest.mark.usefixtures("google")
def test_a_set_in_a_google_store(object_store, vggface2, tmp_path, in_folder, run):
    options = build_options(vggface2, tmp_path / "staging", store=Store("gs://faces/sets/one"))
    object_store.faults[:] = [Fault("503", times=2), Fault("cut", "PUT"), Fault("flip", "PUT", ".tar")]
    build(options)
    assert stored(object_store) == in_folder
    process = run("verify", "--full", "gs://faces/sets/one")
    assert process.returncode == 0, process.stderr
    object_store.put("sets/one/shard-000001.tar", b"another")
    assert run("verify", "gs://faces/sets/one").stdout.startswith("gs://faces/sets/one/shard-000001.tar: 7 bytes")


@pytest.mark.usefixtures("google")
def test_a_large_file_goes_to_a_google_store_in_parts(object_store, tmp_path):
    path = tmp_path / "large"
    path.write_bytes(os.urandom(2 * PART_BYTES + 1))
    store = Store("gs://faces/sets")
    store.upload(path, "large")
    assert object_store.get("sets/large") == path.read_bytes()
    assert object_store.count("PUT", "partNumber") == 3
    store.fetch("large", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()


def test_a_finished_set_is_left_as_it_is(options, object_store, capsys):
    build(options)
    object_store.requests.clear()
    capsys.readouterr()
    build(options)
    assert f"already complete, nothing to do: 45 images of 9 identities in 4 shards at {URL}" in capsys.readouterr().err
    assert uploads(object_store) == []
    assert object_store.count("GET", ".tar") == 0
    assert not options.out.exists()


def test_a_build_that_is_killed_at_any_upload_goes_on(options, object_store, in_folder, monkeypatch):
    """At its first upload, at its second one, and so on; every other time the next machine has no staging."""
    upload, done = Store.upload, set()

    def limited(self, path, name, notes=None):
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        assert name.partition(".")[0] not in done, "a shard that is done is sent again"
        tag = upload(self, path, name, notes)
        done.update({name.partition(".")[0]} if name.endswith("done.json") else ())
        return tag

    monkeypatch.setattr(Store, "upload", limited)
    for attempt in range(1, 30):
        left = attempt
        try:
            build(options)
            break
        except KeyboardInterrupt:
            assert MANIFEST not in Store(URL).list()
        if attempt % 2:
            shutil.rmtree(options.out)
    assert attempt > 4
    assert stored(object_store) == in_folder


def test_shards_that_are_not_as_their_records_say_are_built_again(options, object_store, in_folder):
    build(options)
    object_store.delete(f"sets/one/{MANIFEST}")
    object_store.put("sets/one/shard-000001.tar", bytes(len(in_folder["shard-000001.tar"])))
    object_store.put("sets/one/shard-000002.idx", in_folder["shard-000002.idx"])  # another tag alone
    object_store.delete("sets/one/shard-000003.parquet")
    object_store.requests.clear()
    build(options)
    assert stored(object_store) == in_folder
    assert {name for name in uploads(object_store) if name.endswith("tar")} == {"shard-000001.tar", "shard-000003.tar"}


def test_a_part_is_built_by_one_process_of_this_machine_at_a_time(options, object_store):
    """Both would use one staging, which the first to end deletes."""
    folder = options.out / "part-1-of-2"
    folder.mkdir(parents=True)
    with locked(folder, "testing", shared=True), pytest.raises(LockedError, match=rf"^{URL}: another process is buil"):
        build_part(options, Part(1, 2))
    assert build_part(options, Part(1, 2)) is None
    assert not folder.exists()


@pytest.mark.heavy
def test_trouble_of_the_store_ends_the_build_which_goes_on_later(options, object_store, in_folder, monkeypatch):
    monkeypatch.setattr("shards.attempts.TRIES", 1)
    object_store.faults[:] = [Fault("503", "PUT", "shard-000002.parquet", 99)]
    with pytest.raises(StoreError, match=rf"^{URL}/shard-000002.parquet: 503 Service Unavailable, 1 times; check the"):
        build(options)
    object_store.faults[:] = [Fault("cut"), Fault("500", times=2), Fault("flip", "PUT", "shard-000003.tar")]
    monkeypatch.setattr("shards.attempts.TRIES", 3)
    build(options)
    assert stored(object_store) == in_folder


def test_what_is_in_the_way_is_named_by_its_url(options, vggface2, object_store):
    object_store.put("sets/one/notes/mine.txt", b"text")
    with pytest.raises(ShardError, match=rf"^{URL}: not empty and not a shard set \(it contains notes\); choose"):
        build(options)
    object_store.delete("sets/one/notes/mine.txt")
    build(options)
    other = build_options(vggface2, options.out, store=Store(URL), min_images=2)
    with pytest.raises(ShardError, match=rf"^{URL}: contains a build with different --min-images; choose"):
        build(other)


def test_parts_need_nothing_in_common_but_the_store(vggface2, object_store, tmp_path, in_folder):
    def on(machine):
        return build_options(vggface2, tmp_path / machine, store=Store(URL))

    assert build_part(on("a"), Part(1, 2)) is None
    with pytest.raises(ShardError, match=rf"^{URL}: 2 of 4 shards are missing \(shard-000001.tar, "):
        finish_build(on("c"))
    assert build_part(on("b"), Part(2, 2)).shards == 4
    assert stored(object_store) == in_folder
    object_store.delete(f"sets/one/{INDEX}")
    assert finish_build(on("c")).shards == 4
    assert stored(object_store) == in_folder


@pytest.mark.heavy
def test_small_identities_of_a_finished_set_are_reported_again(options, vggface2, capsys):
    options = build_options(vggface2, options.out, store=options.store, min_images=5)
    (vggface2 / "train" / "n000001" / "0001_01.jpg").write_bytes(b"")
    for _ in range(2):
        build(options)
        assert "--min-images 5: 1 identity fell below it, because images were unusable (n000001: 4)" in (
            capsys.readouterr().err
        )


def test_landmarks_that_the_build_found_are_kept_beside_the_shards(options, object_store):
    """Another machine that continues the build need not search again."""

    def begun(folder):
        folder.mkdir(exist_ok=True)
        return StoredBuild(options.store, folder)

    first, second = begun(options.out), begun(options.out.with_name("second"))
    first.begin()
    (options.out / LANDMARKS).write_bytes(b"table")
    (options.out / PLAN).write_bytes(b"plan")
    first.share_plan()
    assert object_store.content("sets/one") == {LANDMARKS: b"table", PLAN: b"plan"}
    second.begin()
    assert {path.name for path in second.folder.iterdir()} == {LANDMARKS, PLAN}


def test_on_the_command_line(run, vggface2, object_store, tmp_path):
    words = ("build-shards", "--root", vggface2, "--out", URL, "--executor", "serial")
    process = run(*words)
    assert process.returncode == 0, process.stderr
    assert f"45 images of 9 identities in 1 shard at {URL}" in process.stderr
    assert list((tmp_path / "cache" / "stores").iterdir()) == []
    assert run("verify", "--full", URL).stdout == f"{URL}: valid; 45 images, 1 shard\n"
    line = error_of(run(*words[:-3], "s3://nowhere/x", "--executor", "serial"))
    assert line.startswith("Error: s3://nowhere/x: there is no bucket nowhere (404 NoSuchBucket); create it")


@pytest.mark.heavy
def test_worker_processes_upload(options, object_store, in_folder, vggface2):
    object_store.faults[:] = [Fault("500", "PUT", "shard", 5), Fault("cut", "PUT", "shard", 2)]
    build(build_options(vggface2, options.out, store=options.store, executor="process", workers=2))
    assert stored(object_store) == in_folder
