"""Sources that vanish, errors of the system, workers that die."""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import signal
import subprocess
import sys

import cv2
import pytest

from pipeline.build import build
from pipeline.executors import WorkerError
from pipeline.sources.file_readers import ImageTree
from pipeline.sources.listing import SourceError
from pipeline.tables.landmark_table import LandmarkError
from shards.errors import ShardError
from shards.verify import verify
from tests.pipeline.build.made import CSV, contents, image
from tests.processes import PATIENCE_S, REPOSITORY
from tests.shard_sets import build_options


def test_a_serial_build_restores_opencv_settings(vggface2, tmp_path):
    image(vggface2, "n000001/0001_01").write_bytes(b"not an image")
    threads, level = cv2.getNumThreads(), cv2.utils.logging.getLogLevel()
    try:
        cv2.setNumThreads(3)
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        build(build_options(vggface2, tmp_path / "out"))
        assert (cv2.getNumThreads(), cv2.utils.logging.getLogLevel()) == (3, cv2.utils.logging.LOG_LEVEL_ERROR)
    finally:
        cv2.setNumThreads(threads)
        cv2.utils.logging.setLogLevel(level)


@pytest.mark.parametrize("there", [False, True])
def test_a_build_that_cannot_begin_leaves_no_empty_folder(vggface2, tmp_path, there):
    (vggface2 / CSV).write_text("no table\n")
    if there:
        (tmp_path / "out").mkdir()
    with pytest.raises(LandmarkError):
        build(build_options(vggface2, tmp_path / "out"))
    assert (tmp_path / "out").exists() == there


def test_images_that_are_all_unreadable_are_reported_at_the_end(vggface2, tmp_path):
    for path in vggface2.glob("train/*/*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(ShardError, match=r"stored \(45 unreadable-image, such as n\d+/\S+: empty file\); check"):
        build(build_options(vggface2, tmp_path / "out"))


def unmount(folder):
    """What is left of a folder whose disk is unmounted: an empty one."""
    os.rename(folder, folder.with_name("unmounted"))
    folder.mkdir()


def remount(folder):
    folder.rmdir()
    os.rename(folder.with_name("unmounted"), folder)


@pytest.mark.parametrize("lost", ["", "train"])
@pytest.mark.parametrize("vanish", [unmount, lambda folder: os.rename(folder, folder.with_name("unmounted"))])
def test_a_source_that_vanishes_ends_the_build_and_nothing_is_lost(vggface2, tmp_path, monkeypatch, vanish, lost):
    out, landmarks = tmp_path / "out", tmp_path / "landmarks.csv"
    shutil.copy(vggface2 / CSV, landmarks)
    options = build_options(vggface2, out, landmarks=(landmarks,))
    read, calls = ImageTree.read, []

    def reading(*arguments):
        calls.append(arguments)
        if len(calls) == 20:
            vanish(vggface2 / lost)
        return read(*arguments)

    monkeypatch.setattr(ImageTree, "read", reading)
    with pytest.raises(SourceError, match=r"VGGFace2(/train)?: no longer there \(unmounted, moved or deleted"):
        build(options)
    monkeypatch.undo()
    assert sorted(path.name for path in out.glob("*.done.json")) == ["shard-000000.done.json"]
    assert not list(out.glob("*.partial"))
    before = contents(out)
    with pytest.raises(SourceError):  # and while it is away, the same command changes nothing
        build(options)
    assert contents(out) == before
    (vggface2 / lost).mkdir(exist_ok=True)
    remount(vggface2 / lost)
    assert build(options).statuses == {"ok": 45}
    build(build_options(vggface2, tmp_path / "whole", landmarks=(landmarks,)))
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.parametrize("executor", ["serial", "process"])
def test_an_error_of_writing_ends_the_build_in_the_name_of_the_file(vggface2, tmp_path, executor):
    """A limit of the file size is what SIGXFSZ is about, which Python ignores: the system then says EFBIG."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            build(build_options(vggface2, tmp_path / "out", executor=executor))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert re.fullmatch(rf"{tmp_path}/out/shard-00000\d\.tar", error.value.filename)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["plan.json"]
    build(build_options(vggface2, tmp_path / "out"))
    assert list(verify(tmp_path / "out", full=True)) == []


def fail_to_open(monkeypatch, name, number):
    """Lets ``os.open`` fail for files whose path ends with ``name``."""
    opening = os.open

    def failing(path, *rest, **more):
        if str(path).endswith(name):
            raise OSError(number, os.strerror(number), str(path))
        return opening(path, *rest, **more)

    monkeypatch.setattr(os, "open", failing)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ENOTCONN])
def test_no_image_is_blamed_for_trouble_of_the_process_or_the_file_system(vggface2, tmp_path, monkeypatch, number):
    fail_to_open(monkeypatch, "n000004/0002_01.jpg", number)
    with pytest.raises(OSError, match=os.strerror(number)):
        build(build_options(vggface2, tmp_path / "out"))
    monkeypatch.undo()
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert build(build_options(vggface2, tmp_path / "out")).statuses == {"ok": 45}


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_an_image_that_the_system_does_not_read_is_a_row(vggface2, tmp_path, monkeypatch, number):
    fail_to_open(monkeypatch, "n000004/0002_01.jpg", number)
    assert build(build_options(vggface2, tmp_path / "out")).statuses == {"ok": 44, "unreadable-image": 1}


def die(task):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_reported(vggface2, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.build.job.run_shard", die)
    with pytest.raises(WorkerError, match=r"^a worker process died \(out of memory\?\)$"):
        build(build_options(vggface2, tmp_path / "out", executor="process", workers=2))


PARENT = """
from held import hold
from pipeline.executors import unordered_map
list(unordered_map(hold, range(2), executor="process", workers=2))
"""


HELD = """
import time
def hold(number):
    print("at work", flush=True)
    time.sleep(3600)
"""


def test_workers_do_not_outlive_a_killed_build(tmp_path):
    """The pipe that all of them write to is closed when the last of them has ended."""
    (tmp_path / "parent.py").write_text(PARENT)
    (tmp_path / "held.py").write_text(HELD)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    parent = subprocess.Popen([sys.executable, tmp_path / "parent.py"], env=environment, stdout=subprocess.PIPE)
    assert [parent.stdout.readline() for _ in range(2)] == [b"at work\n"] * 2
    parent.kill()
    assert parent.communicate(timeout=PATIENCE_S)[0] == b""
