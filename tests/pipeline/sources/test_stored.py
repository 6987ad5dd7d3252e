"""Source folders in an object store: the set is that of the same folder on this machine, byte for byte."""

from __future__ import annotations

import pytest

from pipeline.images.decode import ImageError
from pipeline.sources.stored_root import StoredImages
from shards.attempts import in_flight
from shards.files import read_record
from shards.schema import PLAN
from shards.store import Store, StoreError
from tests.object_store import Fault
from tests.processes import error_of

URL = "s3://faces/VGGFace2"


@pytest.fixture
def stored(object_store, vggface2):
    """Uploads a folder."""

    def upload(folder):
        store = Store(URL)
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        list(in_flight(lambda path: store.upload(path, path.relative_to(folder).as_posix()), paths))
        object_store.requests.clear()

    return upload


def built(run, root, out, *words):
    process = run("build-shards", "--root", root, "--out", out, "--executor", "serial", *words)
    assert process.returncode == 0, process.stderr
    return {path.name: path.read_bytes() for path in out.iterdir() if path.name != PLAN}


@pytest.mark.parametrize("source", ["vggface2", "folder"])
def test_the_set_is_that_of_the_folder(run, vggface2, stored, object_store, tmp_path, source):
    (vggface2 / "train" / "n000001" / "0001_01.jpg").write_bytes(b"damaged")
    (vggface2 / "train" / "n000002" / "0001_01.jpg").unlink()
    (vggface2 / "train" / "n000003" / "0001_01.jpg").rename(vggface2 / "train" / "n000003" / "0001_01.JPEG")
    words = ["--source", source]
    root, url = vggface2, URL
    if source == "folder":  # without landmarks
        root, url, words = vggface2 / "train", f"{URL}/train", [*words, "--template", "none"]
        (root / "n000004" / "deeper").mkdir()
        (root / "n000004" / "deeper" / "x.jpg").write_bytes(b"x")
        (root / "notes.txt").write_text("x")
    stored(vggface2)
    expected = built(run, root, tmp_path / "local", *words)
    object_store.faults[:] = [Fault("500", "GET", "n00000", 5), Fault("cut", "GET", "n00000", 3)]
    found = built(run, url, tmp_path / "found", *words)
    assert sorted(found) == sorted(expected)
    differing = {name for name in found if found[name] != expected[name]}
    if source == "vggface2":  # the message of the missing image names where it was looked for
        differing -= {"shard-000000.parquet", "shard-000000.done.json", "manifest.json"}
    assert differing == set()
    assert read_record(tmp_path / "found" / PLAN)["root"] == url
    assert object_store.count("GET", "list-type") == 1
    again = run("build-shards", "--root", url, "--out", tmp_path / "found", "--executor", "serial", *words)
    assert "already complete, nothing to do" in again.stderr


def test_from_store_to_store(run, vggface2, stored, object_store, tmp_path):
    stored(vggface2)
    expected = built(run, vggface2, tmp_path / "local")
    process = run("build-shards", "--root", URL, "--out", "s3://faces/set", "--executor", "serial")
    assert process.returncode == 0, process.stderr
    found = object_store.content("set")
    assert {name: data for name, data in found.items() if name != PLAN} == expected


@pytest.mark.heavy
def test_worker_processes_read_from_the_store(run, vggface2, stored, tmp_path):
    stored(vggface2)
    words = ("--images-per-shard", 12)
    expected = built(run, vggface2, tmp_path / "local", *words)
    process = run("build-shards", "--root", URL, "--out", tmp_path / "found", "--workers", 2, *words)
    assert process.returncode == 0, process.stderr
    found = {path.name: path.read_bytes() for path in (tmp_path / "found").iterdir() if path.name != PLAN}
    assert found == expected


def test_images_are_requested_ahead(object_store, stored, vggface2):
    stored(vggface2)
    keys = [f"train/{path.parent.name}/{path.name}".encode() for path in sorted(vggface2.rglob("*.jpg"))]
    reader = StoredImages(Store(URL))
    reader.expect(keys)
    for key in [*keys[::2], keys[1]]:  # others are left out, and one comes out of order
        assert reader.read(key) == (vggface2 / key.decode()).read_bytes()
    reader.close()
    assert reader.read(keys[0]) == (vggface2 / keys[0].decode()).read_bytes()
    with pytest.raises(ImageError, match=r"^the file has [0-9,]+ bytes; at most 10 are read \(--max-pixels\)$"):
        reader.read(keys[0], 10)
    with pytest.raises(FileNotFoundError, match=rf"^no image train/x under {URL}$"):
        reader.read(b"train/x.jpg")
    reader.close()


def test_what_is_not_there(run, vggface2, stored, object_store, tmp_path, monkeypatch):
    words = ("--out", tmp_path / "out", "--executor", "serial")
    line = error_of(run("build-shards", "--root", URL, *words))
    assert line == f"Error: {URL}: is empty; --root names the folder of --source vggface2"
    stored(vggface2)
    assert error_of(run("build-shards", "--root", f"{URL}/train", *words)).startswith(
        f"Error: {URL}/train: no landmark file; expected bb_landmark/"
    )
    line = error_of(run("build-shards", "--source", "recordio", "--root", URL, *words))
    assert line == f"Error: --source recordio reads a folder of this machine: copy or mount {URL}"
    line = error_of(run("build-shards", "--root", URL, "--landmarks", "auto", *words), 2)
    assert line == f"Error: --landmarks auto reads a folder of this machine: copy or mount {URL}"
    table = vggface2 / "bb_landmark" / "loose_landmark_train.csv"
    line = error_of(run("build-shards", "--root", f"{URL}/bb_landmark", "--landmarks", table, *words))
    assert line.startswith(f"Error: {URL}/bb_landmark: holds no image of the landmark tables, such as n000001/0001_01;")


def test_trouble_of_the_store_is_no_fault_of_an_image(run, vggface2, stored, object_store, tmp_path, monkeypatch):
    stored(vggface2)
    monkeypatch.setattr("shards.attempts.TRIES", 1)
    object_store.faults[:] = [Fault("503", "GET", "n000005", 99)]
    process = run("build-shards", "--root", URL, "--out", tmp_path / "out", "--executor", "serial")
    assert ".jpg: 503 Service Unavailable, 1 times; check the network and the store" in error_of(process)
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert StoreError.__name__ not in process.stderr
