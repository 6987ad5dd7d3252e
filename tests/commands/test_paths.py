"""Paths on the command line: URLs are refused, colons are letters like others, files of the user are safe."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pyarrow.parquet as pq
import pytest

from commands.options import LocalPath, StorePath, data
from commands.outputs import OutputPath
from shards.files import temporary_path
from tests.command_line import commands
from tests.networks import save_small
from tests.processes import error_of

PATHS = [
    (name, parameter)
    for name, command in commands()
    for parameter in command.params
    if isinstance(parameter.type, LocalPath | OutputPath)
]
REFUSED = "is a URL; expected a path on this machine: copy or mount the data"


def test_where_a_store_would_do_the_line_says_so(run):
    words = ["train", "--shards", "http://lab/faces"]
    assert error_of(run(*words), 2).endswith(f"http://lab/faces {REFUSED}; or a URL of s3:// or gs://")
    assert error_of(run("inspect", "s3://lab/faces"), 2).endswith(f"s3://lab/faces {REFUSED}")


def test_every_path_is_of_a_type_that_refuses_urls():
    assert len(PATHS) > 50
    others = [parameter for _, command in commands() for parameter in command.params]
    assert not [one for one in others if isinstance(one.type, click.Path) and not isinstance(one.type, LocalPath)]


@pytest.mark.parametrize("url", ["s3://bucket/x", "https://x.org/y.json", "file://server/faces"])
def test_a_url_is_refused_in_place_of_every_path(run, tmp_path, url):
    for name, parameter in PATHS:
        if url.startswith("s3") and isinstance(parameter.type, StorePath | OutputPath):
            continue
        words = [url] if isinstance(parameter, click.Argument) else [parameter.opts[0], url]
        process = run(*name.split(), *words)
        assert f"{url} {REFUSED}" in error_of(process, 2), (name, words)
    for option in ("--resume", "--from", "--teacher"):
        assert error_of(run("train", option, url), 2) == f"Error: Invalid value for {option}: {url} {REFUSED}"
    assert list(tmp_path.iterdir()) == []


def test_a_url_that_lost_a_slash_is_no_folder(run, tmp_path):
    for words in (["build-shards", "--out", "s3:/b/x"], ["verify", "S3:/b"], ["inspect", "x", "--out", "file:/x.png"]):
        assert "a URL has two slashes, " in error_of(run(*words), 2)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_path_is_not_the_current_folder(run, tmp_path):
    for name, parameter in PATHS:
        words = [""] if isinstance(parameter, click.Argument) else [parameter.opts[0], ""]
        assert "an empty path; is a variable of the shell not set?" in error_of(run(*name.split(), *words), 2), name
    for option in ("--resume", "--from", "--teacher"):
        assert error_of(run("train", option, ""), 2).startswith(f"Error: Invalid value for {option}: an empty path; ")
    assert list(tmp_path.iterdir()) == []


def test_a_null_character_is_in_no_path(run):
    for words in (
        ["verify", "file:///a/%00"],
        ["inspect", "a", "--out", "file:///%00.png"],
        ["train", "--from", "a\0"],
    ):
        assert "no path contains a null character" in error_of(run(*words), 2)


def test_an_empty_data_folder_is_the_default(monkeypatch):
    monkeypatch.setenv("LRFR_DATA", "")
    assert data("runs")() == Path("data/runs")


def test_a_url_of_a_file_is_a_path(run, shard_set, tmp_path):
    (tmp_path / "my set").symlink_to(shard_set)
    process = run("verify", f"file://{tmp_path}/my%20set")
    assert process.stdout.startswith(f"{tmp_path}/my set: valid; 45 images")
    assert run("inspect", shard_set, "--report", f"file://localhost{tmp_path}/page.html").returncode == 0
    assert (tmp_path / "page.html").exists()


def test_a_home_that_the_shell_did_not_replace_is_no_folder(run, tmp_path):
    line = "~/x: the shell did not replace ~; write $HOME or ./~ for it"
    assert line in error_of(run("build-shards", "--out=~/x"), 2)
    assert line in error_of(run("embed", "--out=~/x", "."), 2)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_data_variable_is_one_that_is_not_set(run, monkeypatch):
    monkeypatch.setenv("LRFR_DATA", "")
    assert error_of(run("verify")).startswith("Error: data/shards/manifest.json: not found")


def test_a_url_is_refused_in_place_of_the_data_folder(run, monkeypatch):
    monkeypatch.setenv("LRFR_DATA", "s3://bucket")
    for words in (["verify"], ["bench", "qmul"], ["build-shards"]):
        assert f"s3://bucket {REFUSED}" in error_of(run(*words), 2)


def test_a_relative_path_may_have_a_colon(run, vggface2, tmp_path):
    """PyArrow takes such a path for a URI."""
    vggface2.rename(tmp_path / "vgg:v1")
    assert run("build-shards", "--root", "vgg:v1", "--out", "set:v1", "--executor", "serial").returncode == 0
    assert run("verify", "--full", "set:v1").returncode == 0
    assert run("inspect", "set:v1").returncode == 0
    save_small(tmp_path / "net:7.pt")
    words = ["embed", "vgg:v1", "--network", "net:7.pt", "--out", "e:1.parquet", "--no-cache", "--device", "cpu"]
    assert run(*words).returncode == 0
    with open(tmp_path / "e:1.parquet", "rb") as stream:
        assert pq.read_table(stream).num_rows == 45
    expected = {"vgg:v1", "set:v1", "net:7.pt", "e:1.parquet"}
    assert {path.name for path in tmp_path.iterdir()} == expected


def test_embed_replaces_its_file_and_nothing_beside_it(run, vggface2, tmp_path):
    save_small(tmp_path / "net.pt")
    precious, out = tmp_path / "precious", tmp_path / "out"
    precious.write_text("precious")
    out.mkdir()
    (out / "e.parquet.partial").symlink_to(precious)
    temporary_path(out / "e.parquet").write_bytes(b"of a killed process")
    words = ["--network", tmp_path / "net.pt", "--out", out / "e.parquet", "--no-cache", "--device", "cpu"]
    assert run("embed", vggface2, *words).returncode == 0
    assert sorted(path.name for path in out.iterdir()) == ["e.parquet", "e.parquet.partial"]
    assert precious.read_text() == "precious"
    assert not (out / "e.parquet").is_symlink()


def test_no_output_replaces_a_photograph(run, tmp_path):
    """As ``--out photos/*.jpg`` names one."""
    files = [(name, one) for name, one in PATHS if isinstance(one.type, OutputPath) and one.type.kind != "a folder"]
    assert len(files) > 10
    (tmp_path / "face.jpg").write_bytes(b"\xff\xd8 a face")
    for name, parameter in files:
        told = error_of(run(*name.split(), parameter.opts[0], "face.jpg"), 2)
        assert f"face.jpg is there and is not {parameter.type.kind}; delete it if you do not" in told, (name, told)
    assert (tmp_path / "face.jpg").read_bytes() == b"\xff\xd8 a face"


@pytest.mark.parametrize("words", [["embed", "."], ["export", "onnx"]])
def test_a_device_is_not_replaced_by_a_file(run, tmp_path, words):
    os.mkfifo(tmp_path / "fifo")
    assert "fifo is neither file nor folder; expected a file to write" in error_of(run(*words, "--out", "fifo"), 2)


def test_embed_ends_if_the_folder_of_its_images_vanishes(run, vggface2, tmp_path, monkeypatch):
    save_small(tmp_path / "net.pt")
    from benchmarks.engine import prepared

    real = prepared.prepare

    def unmounting(*arguments):
        if vggface2.exists():
            vggface2.rename(tmp_path / "unmounted")
        return real(*arguments)

    monkeypatch.setattr(prepared, "prepare", unmounting)
    words = ["embed", vggface2, "--network", tmp_path / "net.pt", "--out", "e.parquet", "--no-cache"]
    assert error_of(run(*words)).startswith(f"Error: {vggface2}: no longer there (unmounted, moved or deleted")
    assert not (tmp_path / "e.parquet").exists()


def test_a_link_that_leads_nowhere_is_not_replaced(run, tmp_path):
    """Nor does one that leads to itself end a command with a traceback, in place of an output or of an input."""
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "away").symlink_to("elsewhere/x")
    for name, parameter in [one for one in PATHS if isinstance(one[1].type, OutputPath)]:
        for link, target in (("loop", "loop"), ("away", "elsewhere/x")):
            told = error_of(run(*name.split(), parameter.opts[0], link), 2)
            assert f"{link} is a link to {target}, which is not there; delete it, or choose another path" in told, name
    for words in (["search", "loop", "loop", "--out", "a.parquet"], ["calibrate", "loop", "--out", "a.json"]):
        assert error_of(run(*words)).startswith("Error: loop: ")
    assert run("build-shards", "--root", "loop").returncode == run("train", "--resume", "loop").returncode == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["away", "loop"]
