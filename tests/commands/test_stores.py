"""Output files in an object store."""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal
from pathlib import Path

import pytest

from commands.options import staging
from shards.store import Store
from tests.object_store import Fault
from tests.processes import error_of, torchrun, wait_until

URL = "s3://faces/out"


def test_a_page_and_a_picture_are_uploaded(run, shard_set, object_store, tmp_path):
    process = run("inspect", shard_set, "--report", f"{URL}/report", "--out", f"{URL}/sheet.png")
    assert process.returncode == 0, process.stderr
    assert f"uploaded to {URL}/report: 1 file\n" in process.stderr
    assert f"uploaded to {URL}: 1 file\n" in process.stderr
    content = object_store.content("out")
    assert sorted(content) == ["report/inspect.html", "sheet.png"]
    assert content["sheet.png"].startswith(b"\x89PNG")
    pages = list((tmp_path / "cache" / "stores").rglob("*.html"))
    assert [page.read_bytes() for page in pages] == [content["report/inspect.html"]]
    assert run("inspect", shard_set, "--report", f"{URL}/one.html").returncode == 0
    assert object_store.content("out")["one.html"].startswith(b"<!doctype html")


def test_an_object_of_another_kind_is_not_replaced(run, shard_set, object_store):
    object_store.put("out/sheet.png", b"\xff\xd8\xff a photograph")
    line = error_of(run("inspect", shard_set, "--out", f"{URL}/sheet.png"), 2)
    assert line.endswith(f"{URL}/sheet.png is there and is not a PNG file; choose another name")
    assert error_of(run("inspect", shard_set, "--out", "s3://faces"), 2).endswith(
        "s3://faces: a bucket; expected a file in it, such as s3://faces/file"
    )
    assert error_of(run("inspect", shard_set, "--report", "s3://nowhere")).startswith(
        "Error: s3://nowhere/index.html: there is no bucket nowhere"
    )


def test_a_report_beside_a_run_leaves_what_waits_for_upload_alone(run, shard_set, object_store, monkeypatch):
    checkpoint = staging(Store(f"{URL}/first")) / "run" / "checkpoints" / "8.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    assert run("inspect", shard_set, "--report", f"{URL}/first").returncode == 0
    assert checkpoint.exists()
    assert list(object_store.content("out")) == ["first/inspect.html"]


def test_what_cannot_be_uploaded_stays_here(run, shard_set, object_store, tmp_path, monkeypatch):
    monkeypatch.setattr("shards.attempts.TRIES", 1)
    object_store.faults[:] = [Fault("503", "PUT", times=99)]
    line = error_of(run("inspect", shard_set, "--out", f"{URL}/sheet.png"))
    (picture,) = (tmp_path / "cache" / "stores").rglob("*.png")
    assert line.startswith(f"Error: {URL}/sheet.png: 503 Service Unavailable, 1 times; ")
    assert line.endswith(f"; the files are in {picture.parent}")


def test_a_command_that_fails_says_why_and_uploads_what_there_is(run, shard_set, object_store):
    (shard_set / "shard-000000.tar").unlink()
    process = run("inspect", shard_set, "--out", f"{URL}/sheet.png")
    assert "shard-000000.tar" in error_of(process)
    assert object_store.content("out") == {}


SMALL = ["--backbone", "spherenet4", "--batch-size", 4, "--steps", 2]
STORED = "s3://faces/sets/small"


def losses(run):
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("narrow")
def test_training_from_a_store_is_training_from_a_folder(run, stored_shards, object_store, tmp_path):
    process = run("train", *SMALL, "--shards", STORED, "--cache-size", "50M", "--out", tmp_path / "stored")
    assert process.returncode == 0, process.stderr
    assert run("train", *SMALL, "--shards", stored_shards, "--out", tmp_path / "folder").returncode == 0
    assert losses(tmp_path / "stored") == losses(tmp_path / "folder") != []
    (shown,) = [line for line in process.stderr.splitlines() if line.startswith(STORED)]
    assert shown.startswith(f"{STORED} to {tmp_path}/cache/sets: ")
    assert len(list((tmp_path / "cache" / "sets").rglob("*.tar"))) >= 10
    object_store.requests.clear()
    again = run("train", *SMALL, "--shards", STORED, "--out", tmp_path / "stored", "--steps", 3)
    assert again.returncode == 0
    assert object_store.count("GET", "list-type") == 0


def test_options_of_the_cache_are_for_a_set_in_a_store(run, shard_set):
    words = ["train", *SMALL, "--shards", shard_set]
    for option in (["--cache-size", "50G"], ["--cache-folder", "x"]):
        line = error_of(run(*words, *option), 2)
        assert line == f"Error: {option[0]} is for a set in an object store, but {shard_set} is a path; leave it out"
    for size in ("fifty", "0"):
        line = error_of(run(*words[:-1], STORED, "--cache-size", size), 2)
        assert line.endswith(
            f"'{size}' is not a size; expected a number of bytes with a unit, such as 800M, 50G or 1.5T"
        )


@pytest.mark.parametrize("there", [["plan.json"], []])
def test_what_is_no_set_to_train_on(run, object_store, there):
    for name in there:
        object_store.put(f"sets/small/{name}", b"")
    state = "is an unfinished build; run build-shards again to resume it" if there else "is empty"
    line = error_of(run("train", *SMALL, "--shards", STORED))
    assert line == f"Error: {STORED}/manifest.json: not found; {STORED} {state}"


@pytest.mark.usefixtures("narrow")
def test_a_store_that_fails_during_training_is_reported_in_one_line(
    run, stored_shards, object_store, tmp_path, monkeypatch
):
    monkeypatch.setattr("shards.attempts.TRIES", 1)
    object_store.faults[:] = [Fault("403", "GET", ".tar", times=99)]
    line = error_of(run("train", *SMALL, "--shards", STORED))
    assert line.startswith(f"Error: {STORED}/shard-0000")
    assert "refused (403" in line


def rank_process(folder, rank):
    """The process id of a rank of a training into a folder; None if there is none yet."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words, variables = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue
        if b"cli.py" in words and os.fsencode(folder) in words and b"\0RANK=%d\0" % rank in variables:
            return int(process.name)
    return None


@pytest.mark.heavy
def test_ranks_share_a_cache_and_one_may_be_killed_during_a_fetch(run, stored_shards, object_store, tmp_path):
    cache, out = tmp_path / "tars", tmp_path / "out"
    words = ["cli.py", "train", *SMALL, "--shards", STORED, "--cache-folder", cache, "--out", out]
    object_store.faults[:] = [Fault("hold", "GET", ".tar", times=2)]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        killed = pool.submit(torchrun, 2, *words)
        wait_until(lambda: len(list(cache.rglob("*.tar"))) >= 8 and len(list(cache.rglob("*.fetching"))) >= 2)
        os.kill(rank_process(out, 1), signal.SIGKILL)
        assert killed.result().returncode != 0
    object_store.faults.clear()
    before = object_store.count("GET", ".tar")
    there = len(list(cache.rglob("*.tar")))
    process = torchrun(2, *words)
    assert process.returncode == 0, process.stderr
    assert list(cache.rglob("*.fetching")) == []
    assert object_store.count("GET", ".tar") - before == len(list(cache.rglob("*.tar"))) - there
    assert run("train", *SMALL, "--shards", stored_shards, "--out", tmp_path / "folder").returncode == 0
    assert losses(out) == pytest.approx(losses(tmp_path / "folder"), rel=1e-5)
