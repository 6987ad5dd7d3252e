"""The audit command."""

from __future__ import annotations

import os
import shutil

import pytest

from pipeline.build.exclusions import read_exclusions
from pipeline.demo.generate import write_demo_data
from tests.networks import save_small
from tests.pages import Page
from tests.processes import error_of


@pytest.fixture
def checkpoint(tmp_path):
    save_small(tmp_path / "x.pt")
    return tmp_path / "x.pt"


def test_the_command_says_what_it_found_and_where(run, shard_set, checkpoint, tmp_path):
    done = run("audit", shard_set, "--network", checkpoint, "--out", tmp_path / "found")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"{shard_set}: 45 images of 9 identities"
    assert [line.partition(":")[0] for line in lines[1:4]] == ["wrong-label", "same-person", "same-photograph"]
    assert lines[4:] == [f"pictures: {tmp_path}/found/audit.html", f"exclusion list: {tmp_path}/found/exclude.txt"]
    assert "embed: 45/45 images" in done.stderr
    assert sorted(os.listdir(tmp_path / "found")) == ["audit.html", "audit.parquet", "exclude.txt"]
    assert "x.pt" in Page(tmp_path / "found" / "audit.html").text


def test_a_list_that_was_edited_is_kept(run, shard_set, checkpoint, tmp_path):
    words = ["audit", shard_set, "--network", checkpoint, "--out", tmp_path / "found"]
    assert run(*words).returncode == 0
    assert run(*words).returncode == 0  # what an audit wrote is replaced
    listed = tmp_path / "found" / "exclude.txt"
    assert read_exclusions(listed).entries == []
    edited = listed.read_text() + "n000002/0007_01\n"
    listed.write_text(edited)
    assert "exclude.txt: is there and was edited, or no audit wrote it; rename it" in error_of(run(*words))
    assert listed.read_text() == edited
    listed.unlink()
    (tmp_path / "found" / "audit.html").write_text("mine")
    assert "audit.html is there and is not an HTML page" in error_of(run(*words), 2)
    assert (tmp_path / "found" / "audit.html").read_text() == "mine"


@pytest.mark.heavy
def test_benchmarks_are_looked_for_under_the_root(run, shard_set, checkpoint, tmp_path):
    write_demo_data(tmp_path, identities=8, images=3, seed=0)
    words = ["audit", shard_set, "--network", checkpoint, "--out", tmp_path / "found"]
    names = ("lfw", "xqlfw", "scface", "qmul", "qmul-id", "tinyface")
    done = run(*words, *(word for name in names for word in ("--against", name)))
    assert done.returncode == 0, done.stderr
    assert [line.partition(":")[0] for line in done.stdout.splitlines()[4:10]] == list(names)
    shutil.rmtree(tmp_path / "LFW")
    assert "LFW's images" in error_of(run(*words, "--against", "lfw"))


def test_missing_data_is_reported_before_the_work(run, shard_set, checkpoint, tmp_path):
    assert "Missing option '--out'" in error_of(run("audit", shard_set, "--network", checkpoint), 2)
    words = ["--network", checkpoint, "--out", tmp_path / "found"]
    assert "not a shard set" in error_of(run("audit", tmp_path, *words))
    assert not (tmp_path / "found").exists()


def test_one_identity_is_no_distribution(run, vggface2, checkpoint, tmp_path):
    table = vggface2 / "bb_landmark" / "loose_landmark_train.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:6]) + "\n")
    built = run("build-shards", "--root", vggface2, "--out", tmp_path / "one", "--executor", "serial")
    assert built.returncode == 0, built.stderr
    done = run("audit", tmp_path / "one", "--network", checkpoint, "--out", tmp_path / "found")
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert "wrong-label: too few images to judge labels" in done.stdout
