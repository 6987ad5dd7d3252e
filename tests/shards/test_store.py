"""Objects in and out of a store, over a network that fails in all the ways that networks do."""

from __future__ import annotations

import json
import pickle

import pytest

from shards import connection
from shards import store as module
from shards.files import file_facts
from shards.store import Entry, Store, StoreError, is_url
from tests.object_store import Fault

URL = "s3://faces/a/set"
SLOW = pytest.param("slow", True, marks=pytest.mark.heavy)
PASSING = [*((kind, True) for kind in ("500", "503", "429", "cut", "flip")), ("flip", False), SLOW]

ACCOUNT = {"type": "service_account", "private_key_id": "1", "client_email": "a@b"}


@pytest.fixture
def store(object_store):
    return Store(URL)


def small(tmp_path, content=b"a shard"):
    path = tmp_path / "file"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("size", [0, 7, module.PART_BYTES, 2 * module.PART_BYTES + 1])
def test_a_file_comes_back_as_it_was(store, object_store, tmp_path, size):
    path = small(tmp_path, bytes(range(256)) * (size // 256) + bytes(size % 256))
    facts = file_facts(path)
    tag = store.upload(path, "x/y.tar", {"note": "1"})
    assert store.list() == {"x/y.tar": Entry(size, tag)}
    copy = tmp_path / "copy"
    assert store.fetch("x/y.tar", copy, facts)["note"] == "1"
    assert copy.read_bytes() == path.read_bytes()
    assert store.is_intact("x/y.tar", Entry(size, tag), facts, tag)
    parts = object_store.count("PUT", "partNumber")
    assert parts == (-(-size // module.PART_BYTES) if size > module.PART_BYTES else 0)
    assert object_store.count("GET", "y.tar") == 1  # the tag said that it is intact


def test_a_listing_is_one_request_for_a_thousand_objects(store, object_store):
    object_store.fill("a/set", 1500)
    assert len(store.list()) == 1500
    assert [request[:2] for request in object_store.requests] == [("GET", "/faces")] * 2


@pytest.mark.parametrize(("kind", "server_checks"), PASSING)
def test_temporary_errors_are_reported_once(store, object_store, tmp_path, capsys, monkeypatch, kind, server_checks):
    monkeypatch.setattr(connection, "_REQUEST_TRIES", 1)
    monkeypatch.setattr(connection, "READ_TIMEOUT_S", 1 if kind == "slow" else 60)
    object_store.checks = server_checks
    path = small(tmp_path)
    facts, copy = file_facts(path), tmp_path / "copy"
    object_store.faults[:] = [Fault(kind, "PUT", "x.tar")]
    tag = store.upload(path, "x.tar")
    object_store.faults[:] = [Fault(kind, "GET", "x.tar")]
    store.fetch("x.tar", copy, facts)
    assert copy.read_bytes() == path.read_bytes()
    assert store.list() == {"x.tar": Entry(7, tag)}
    assert store.is_intact("x.tar", Entry(7, tag), facts, tag)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith(f"{URL}/x.tar: ")
    assert told[0].endswith("; trying again, 8 times in all, as with later trouble")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["copy", "file"]


def test_a_part_that_fails_is_sent_again_alone(store, object_store, tmp_path, capsys):
    path = small(tmp_path, bytes(3 * module.PART_BYTES))
    object_store.faults[:] = [Fault("500", "PUT", "partNumber=2"), Fault("cut", "PUT", "partNumber=3")]
    store.upload(path, "x.tar")
    assert object_store.count("PUT", "partNumber") == 5
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("500", r"500 Internal Server Error"),
        ("cut", r".*(connection|closed|error).*"),
        ("flip", r"400 BadDigest"),
    ],
)
def test_trouble_that_lasts_names_object_and_remedy(store, object_store, tmp_path, monkeypatch, kind, reason):
    monkeypatch.setattr("shards.attempts.TRIES", 2)
    object_store.faults[:] = [Fault(kind, "PUT", "x.tar", 99)]
    with pytest.raises(StoreError, match=rf"^{URL}/x.tar: {reason}, 2 times; .*, then run the same command again$"):
        store.upload(small(tmp_path), "x.tar")
    object_store.faults.clear()
    assert store.list() == {}


def test_an_object_that_changed_is_an_error_that_names_it(store, object_store, tmp_path, monkeypatch):
    monkeypatch.setattr("shards.attempts.TRIES", 2)
    path = small(tmp_path)
    facts, tag = file_facts(path), store.upload(path, "x.tar")
    store.upload(small(tmp_path, b"a bhard"), "x.tar")
    with pytest.raises(StoreError, match=rf"^{URL}/x.tar: its content is not what was stored \(SHA-256"):
        store.fetch("x.tar", tmp_path / "copy", facts)
    assert not (tmp_path / "copy").exists()
    assert not store.is_intact("x.tar", store.list()["x.tar"], facts, tag)
    store.upload(small(tmp_path), "x.tar")
    assert store.is_intact("x.tar", store.list()["x.tar"], facts, "a tag of another store")


def test_tags_that_are_no_md5_are_met_by_reading_the_first_object(store, object_store, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_expected_tag", lambda path: "of a store that encrypts")
    for name in ("a", "b", "c"):
        store.upload(small(tmp_path), name)
    assert [object_store.count("GET", f"set/{name}") for name in "abc"] == [1, 0, 0]


def test_a_bucket_that_is_not_there(object_store, tmp_path):
    line = "there is no bucket nowhere (404 NoSuchBucket); create it, or check its name and AWS_ENDPOINT_URL"
    store = Store("s3://nowhere/x")
    for work in (store.list, lambda: store.upload(small(tmp_path), "x")):
        with pytest.raises(StoreError) as error:
            work()
        assert str(error.value).endswith(line)
    assert len(object_store.requests) == 2


def test_an_object_that_is_not_there(store, tmp_path):
    with pytest.raises(StoreError, match=rf"^{URL}/x: not found; check the URL$"):
        store.fetch("x", tmp_path / "x")
    store.delete(["x"])


@pytest.mark.parametrize(("status", "name"), [("403", "Forbidden"), ("401", "Unauthorized")])
def test_a_refusal_names_the_credentials(store, object_store, status, name):
    object_store.faults[:] = [Fault(status, times=99)]
    with pytest.raises(StoreError, match=rf"^{URL}: refused \({status} {name}\); check AWS_ACCESS_KEY_ID and"):
        store.list()
    assert len(object_store.requests) == 1


def test_no_credentials(object_store, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    with pytest.raises(StoreError, match=rf"^{URL}: no credentials found; set AWS_ACCESS_KEY_ID and"):
        Store(URL).list()
    (tmp_path / "AWS_SHARED_CREDENTIALS_FILE").write_text("[lab]\naws_access_key_id=a\naws_secret_access_key=b\n")
    (tmp_path / "AWS_CONFIG_FILE").write_text(f"[profile lab]\nregion=eu-west-1\nendpoint_url={object_store.url}\n")
    monkeypatch.setenv("AWS_PROFILE", "lab")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert Store(URL).list() == {}


def test_a_full_disk_is_no_fault_of_the_store(store, object_store, tmp_path):
    store.upload(small(tmp_path), "x")
    with pytest.raises(FileNotFoundError, match="gone"):
        store.fetch("x", tmp_path / "gone" / "x")


def test_urls():
    assert [is_url(text) for text in ("s3://b/x", "GS://b", "file:///x", "s3:/b", "x/s3://b")] == [True] * 2 + [
        False
    ] * 3
    assert Store("S3://b//x/").url == "s3://b/x"
    assert pickle.loads(pickle.dumps(Store("gs://b/x"))).url == "gs://b/x"
    for url in ("s3://", "s3:///", "s3:///b/x", "http://b/x"):
        with pytest.raises(StoreError, match=r"expected a URL such as s3://bucket/folder, of s3 or gs$"):
            Store(url)
    for url in ("s3://b/../c", "s3://b/x?y", "s3://b/x#y", "s3://b/x\n"):
        with pytest.raises(StoreError, match=r"with \?, #, control characters or a folder \. or \.\. is not taken"):
            Store(url)


@pytest.mark.parametrize("endpoint", ["localhost:9000", "http://", "http://a b", "s3.example.org", "http://host:port"])
def test_an_endpoint_that_is_no_url_is_named(store, monkeypatch, endpoint):
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(StoreError, match=f"^AWS_ENDPOINT_URL {endpoint}: expected http://HOST:PORT or https://HOST$"):
        store.list()


@pytest.mark.parametrize(
    "content", [None, "", "no JSON", '{"type": "service_account"}', json.dumps({**ACCOUNT, "private_key": "none"})]
)
def test_an_invalid_credentials_file_of_google_is_not_tried_again(content, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    if content is not None:
        (tmp_path / "key.json").write_text(content)
    with pytest.raises(StoreError, match=r"^gs://faces/set: unusable credentials \((Unable|Generic).*set GOOGLE_APPL"):
        Store("gs://faces/set").list()
    assert "trying again" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"AWS_PROFILE": "nope"}, r"no credentials: The config profile \(nope\) could not be found; check "),
        ({"AWS_CONFIG_FILE": "no settings"}, "no credentials: Unable to parse config file: .*; check "),
        ({"AWS_SHARED_CREDENTIALS_FILE": "[default]\naws_access_key_id = k\n"}, "no credentials: Partial credentials "),
        ({"AWS_CONFIG_FILE": "[default]\nrole_arn = a\nsource_profile = y\n"}, "no credentials: The source_profile "),
        ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "nonsense"}, "no credentials: Unsupported host 'None'"),
        ({"AWS_ROLE_ARN": "arn:x", "AWS_WEB_IDENTITY_TOKEN_FILE": "/no/t"}, r"no credentials \(FileNotFoundError: "),
        (
            {"AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "maybe", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"},
            r"wrong settings \(failed to parse ",
        ),
    ],
)
def test_settings_of_amazon_that_are_wrong_are_not_tried_again(store, monkeypatch, capsys, tmp_path, settings, line):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, value in settings.items():
        if name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            (tmp_path / "file").write_text(value)
            value = str(tmp_path / "file")
        monkeypatch.setenv(name, value)
    with pytest.raises(StoreError, match=f"^{URL}: {line}"):
        store.list()
    assert "trying again" not in capsys.readouterr().err


@pytest.mark.parametrize("bucket", ["fa ces", "faces:80", "user:password@faces", "-x"])
def test_a_name_that_no_bucket_has(bucket):
    with pytest.raises(StoreError, match=f"'{bucket}' is not the name of a bucket: letters, digits, dots, - and _$"):
        Store(f"s3://{bucket}/a")


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("AWS_ACCESS_KEY_ID", "key\r", "AWS_ACCESS_KEY_ID holds a line break or another control character; set it "),
        ("AWS_SESSION_TOKEN", "a\nb", "AWS_SESSION_TOKEN holds a line break or another control character; set it "),
        ("AWS_ENDPOINT_URL", "", "AWS_ENDPOINT_URL is set, but empty; unset it, or set it to "),
        ("AWS_ENDPOINT_URL_S3", "", "AWS_ENDPOINT_URL_S3 is set, but empty; unset it, or set it to "),
    ],
)
def test_a_variable_at_which_the_library_would_panic_is_one_line(store, monkeypatch, name, value, line):
    monkeypatch.setenv(name, value)
    with pytest.raises(StoreError, match=f"^{line}"):
        store.list()


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_half_of_the_credentials_is_not_tried_again(store, monkeypatch, capsys, name):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    with pytest.raises(StoreError, match=r"credentials.*; set (both )?AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        store.list()
    assert "trying again" not in capsys.readouterr().err
