"""fetch puts the files where the other commands look for them, and touches nothing else."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.datasets.lfw import read_lfw
from benchmarks.errors import ProtocolError
from pipeline.demo.pairs import pairs_text
from pipeline.fetch import assets, places
from pipeline.landmarks import model
from shards.locks import locked
from tests.pipeline.fetch.archives import FACES, tar
from tests.pipeline.fetch.faulty_server import cut, remote, stalled, status, whole
from tests.processes import PATIENCE_S, REPOSITORY, error_of, wait_until


@pytest.fixture
def site(server, tmp_path, monkeypatch):
    """The server, with a small LFW and a model in place of the real ones; no other address is left."""
    archive = tar(tmp_path / "pack.tgz", FACES).read_bytes()
    (tmp_path / "pack.tgz").unlink()
    pairs = pairs_text(["A_B", "C"], 2, np.random.default_rng(0)).encode()
    files = {"pairs.txt": pairs, "lfw.tgz": archive, "face_landmarker.task": b"model"}

    def described(name):
        return remote(server.url, content=files[name], name=name)

    lfw = dataclasses.replace(
        assets.DOWNLOADS["lfw"], files=(described("pairs.txt"),), archive=described("lfw.tgz"), counts=(3, 2)
    )
    landmarker = dataclasses.replace(assets.DOWNLOADS["landmarker"], files=(described("face_landmarker.task"),))
    monkeypatch.setattr(places, "DOWNLOADS", {"lfw": lfw, "landmarker": landmarker})
    server.answers = [lambda handler: whole(files[handler.path.rpartition("/")[2]])(handler)]
    return server


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


LFW = ["lfw.tgz", "lfw/A_B/A_B_0001.jpg", "lfw/A_B/A_B_0002.jpg", "lfw/C/C_0001.JPG", "pairs.txt"]


def test_lfw_is_stored_where_bench_expects_it(run, site, tmp_path):
    process = run("fetch", "lfw")
    assert process.returncode == 0, process.stderr
    root = tmp_path / "LFW"
    assert process.stdout.splitlines() == [
        f"LFW: {root}/pairs.txt",
        f"{root}/lfw.tgz: unpacked, may be deleted",
        f"LFW: 3 images of 2 people in {root}/lfw",
        "bench lfw also needs landmarks: the reference's LFW.csv, or: lrfr bench lfw --landmarks auto",
    ]
    assert files(root) == LFW
    with pytest.raises(ProtocolError, match=r"LFW\.csv: not found"):
        read_lfw(tmp_path)
    (root / "LFW.csv").write_text("".join(f"{name},{'1,' * 9}1\n" for name in LFW[1:4]))
    assert sum(request.path.exists() for request in read_lfw(tmp_path).requests) == 3 * 5


def test_what_is_there_is_not_downloaded_again(run, site, tmp_path):
    run("fetch", "lfw", "landmarker")
    (tmp_path / "LFW" / "lfw.tgz").unlink()
    site.requests.clear()
    process = run("fetch", "lfw", "landmarker", "lfw")
    assert process.returncode == 0
    assert process.stdout.count("LFW: 3 images of 2 people") == 1
    assert site.requests == []


def test_a_file_that_was_put_there_by_hand_is_used(run, site, tmp_path):
    run("fetch", "lfw")
    (tmp_path / "LFW" / "lfw").rename(tmp_path / "elsewhere")
    site.answers = [status(404)]
    assert run("fetch", "lfw").returncode == 0
    assert files(tmp_path / "LFW") == LFW


def test_the_model_is_stored_where_landmarks_expects_it(run, site, tmp_path):
    assert run("fetch", "landmarker").stdout.endswith(f"{tmp_path}/models/face_landmarker.task\n")
    assert (tmp_path / model.FOLDER / model.FILE_NAME).read_bytes() == b"model"
    assert assets.DOWNLOADS["landmarker"].files[0].sha256 == model.SHA256


def test_a_mirror_comes_first(run, site, monkeypatch):
    run("fetch", "landmarker", "--mirror", f"{site.url}/lab/")
    monkeypatch.setenv("LRFR_MIRROR", f"{site.url}/one {site.url}/two")
    site.answers = [status(404), site.answers[-1]]
    run("fetch", "lfw")
    assert [path for path, _ in site.requests] == [
        *("/lab/face_landmarker.task", "/one/pairs.txt", "/two/pairs.txt", "/one/lfw.tgz")
    ]


@pytest.mark.parametrize("mirror", ["ftp://x", "/mnt/faces", "https://me:word@x"])
def test_what_is_no_mirror(run, mirror):
    assert "expected the address of a folder, such as https://server/faces" in error_of(
        run("fetch", "lfw", "--mirror", mirror), 2
    )


def test_generated_faces_are_in_the_way(run, site, tmp_path):
    (tmp_path / "LFW").mkdir()
    (tmp_path / "LFW" / "generated.json").touch()
    assert "holds the generated faces of demo-data; move the folder away" in error_of(run("fetch", "lfw"))
    assert site.requests == []


def test_other_images_are_in_the_way(run, site, tmp_path):
    (tmp_path / "LFW" / "lfw" / "Me").mkdir(parents=True)
    message = error_of(run("fetch", "lfw"))
    assert f"{tmp_path}/LFW/lfw: 0 images of 1 person, published 3 of 2; move it away" in message
    assert site.requests == []


def test_another_fetch_is_waited_for_by_the_user(run, site, tmp_path):
    (tmp_path / "LFW").mkdir()
    with locked(tmp_path / "LFW", "downloading"):
        message = error_of(run("fetch", "lfw"))
    assert message == f"Error: {tmp_path}/LFW: another process is downloading here; wait for it to end"
    assert run("fetch", "landmarker").returncode == 0


def test_an_error_is_one_line_and_the_exit_code_1(run, site, tmp_path):
    site.answers = [status(404)]
    message = error_of(run("fetch", "lfw"))
    assert message.startswith(f"Error: pairs.txt: not downloaded ({site.url}/pairs.txt: status 404 Not Found). ")
    assert files(tmp_path) == []


def test_a_wrong_file_unpacks_nothing(run, site, tmp_path):
    good = site.answers[0]
    site.answers = [good, whole(b"evil")]
    assert "lfw.tgz: not downloaded" in error_of(run("fetch", "lfw"))
    assert files(tmp_path) == ["LFW/pairs.txt"]


@pytest.mark.parametrize("name", assets.UNAVAILABLE)
def test_what_cannot_be_downloaded_says_where_it_is(run, name, tmp_path):
    message = error_of(run("fetch", name))
    assert str(tmp_path) in message
    assert "research" in message


def test_names_that_cannot_be_downloaded_stop_the_others(run, site):
    assert "SCface is given on request" in error_of(run("fetch", "lfw", "scface"))
    assert site.requests == []


def test_every_digest_is_one():
    found = [file for one in assets.DOWNLOADS.values() for file in (*one.files, one.archive) if file]
    assert len(found) == 5
    for file in found:
        assert len(bytes.fromhex(file.sha256)) == 32
        assert file.urls
        assert all(url.startswith("https://") for url in file.urls)


@pytest.mark.slow
def test_ctrl_c_keeps_what_arrived(server, tmp_path):
    server.answers = [stalled(3000)]
    environment = {**os.environ, "LRFR_DATA": str(tmp_path)}
    words = ["fetch", "landmarker", "--mirror", server.url]
    process = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "cli.py"), *words], env=environment, stderr=subprocess.PIPE, text=True
    )
    part = tmp_path / "models" / "face_landmarker.task.download"
    wait_until(lambda: part.exists())
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted; what has arrived is kept: run the same command to continue"
    assert part.exists()
    assert not (tmp_path / "models" / "face_landmarker.task").exists()


def test_a_cut_archive_is_resumed_by_the_same_command(run, site, tmp_path):
    good = site.answers[0]
    content = {}

    def first(handler):
        handler.reply = lambda code, body=b"", **words: content.setdefault("body", body)
        good(handler)
        del handler.reply
        cut(50, content=content["body"])(handler)

    site.answers = [good, first, status(404)]
    assert "50 bytes are kept, the same command continues" in error_of(run("fetch", "lfw"))
    site.answers = [good]
    assert run("fetch", "lfw").returncode == 0
    assert site.requests[-1][1]["Range"] == "bytes=50-"


def test_the_guide_names_every_file_its_place_and_digest():
    page = (REPOSITORY / "docs" / "guide" / "prepare.md").read_text()
    rows = [
        f"| `{file.name}` | `{one.folder}/{file.name}` | `{file.sha256}` |"
        for one in assets.DOWNLOADS.values()
        for file in (*one.files, one.archive)
        if file
    ]
    assert len(rows) == 5
    assert [row for row in rows if row not in page] == []
