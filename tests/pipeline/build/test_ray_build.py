"""Builds on a Ray cluster: the same bytes as the pool's, with lost workers and machines, and nothing left behind."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import pytest

import pipeline.ray_pool
from pipeline.build import build, worker
from pipeline.executors import WorkerError, unordered_map
from pipeline.ray_local import local_cluster
from pipeline.signals import SIGNALS
from shards.errors import ShardError
from shards.schema import Manifest
from tests.pipeline.build.made import CSV, contents, csv_lines, image, write_csv
from tests.processes import PATIENCE_S, REPOSITORY, error_of, in_time, members, wait_until
from tests.shard_sets import build_options

COPIES = 8
AGENTS_S = 60  # that Ray's agents survive if they are not killed


@pytest.fixture
def many(vggface2):
    """360 images, one of which is damaged, and one is absent."""
    lines = csv_lines(vggface2)
    rows = [line.replace('"n', f'"c{copy}n') for copy in range(COPIES) for line in lines[1:]]
    for folder in sorted((vggface2 / "train").iterdir()):
        for copy in range(COPIES):
            (vggface2 / "train" / f"c{copy}{folder.name}").mkdir()
            for path in folder.iterdir():
                os.link(path, vggface2 / "train" / f"c{copy}{folder.name}" / path.name)
    write_csv(vggface2, [lines[0], *rows])
    image(vggface2, "c0n000001/0002_01").unlink()
    image(vggface2, "c0n000001/0002_01").write_bytes(b"not an image")
    image(vggface2, "c0n000001/0003_01").unlink()
    return vggface2


def started(root, out, *options, **variables):
    words = [sys.executable, str(REPOSITORY / "cli.py"), "build-shards", "--root", str(root), "--out", str(out)]
    words += ["--landmarks", str(root / CSV), "--images-per-shard", "1", "--executor", "ray", *options]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | variables
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(words, cwd=out.parent, env=environment, start_new_session=True, **streams)


def done(out):
    return len(list(out.glob("*.done.json")))


def children(pid):
    """Processes below ``pid``, with their command lines."""
    parents, words = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(") ")[2].split()[1])
            words[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    below = {pid}
    while more := {child for child, parent in parents.items() if parent in below} - below:
        below |= more
    return {child: words[child] for child in below if child != pid and child in words}


def workers_of(raylet):
    return [pid for pid, words in children(raylet).items() if words.startswith("ray::_Worker")]


@contextlib.contextmanager
def stopped(pids):
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.heavy
def test_a_build_survives_the_loss_of_a_worker_and_of_a_machine(many, tmp_path, cluster):
    """And its files are those of a build without one; a bad image is a row."""
    out = tmp_path / "out"
    process = started(many, out, "--ray-address", cluster.address)
    wait_until(lambda: done(out) > 10 or process.poll() is not None)
    with stopped(workers_of(cluster.first_raylet)):  # it could do all the work before the other machine is ready
        wait_until(lambda: workers_of(cluster.second_raylet) or process.poll() is not None)
    os.kill(workers_of(cluster.second_raylet)[0], signal.SIGKILL)
    count = done(out)
    wait_until(lambda: done(out) > count + 60 or process.poll() is not None)
    os.kill(cluster.second_raylet, signal.SIGKILL)
    stdout, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, stdout) == (0, ""), err
    assert 1 <= err.count("was lost") <= 2, err
    assert_lines_are_ours(err)
    build(build_options(many, tmp_path / "whole", images_per_shard=1))
    assert contents(out) == contents(tmp_path / "whole")
    assert Manifest.read(out).statuses == {"missing-file": 1, "ok": 358, "unreadable-image": 1}


def assert_lines_are_ours(err):
    known = r"\d+ rows of |build-shards: |done: |rejected: |a Ray worker on .* was lost|interrupted; |Error: "
    assert [line for line in err.splitlines() if not re.match(known, line)] == []


@pytest.mark.heavy
@pytest.mark.parametrize(("number", "group"), [(signal.SIGINT, True), (signal.SIGTERM, False), (signal.SIGHUP, True)])
def test_an_interrupted_build_on_a_cluster_of_its_own_leaves_nothing(many, tmp_path, number, group):
    out = tmp_path / "out"
    process = started(many, out)
    wait_until(lambda: done(out) > 5 or process.poll() is not None)
    below = children(process.pid)
    assert any("raylet" in words for words in below.values()), (process.poll(), below)
    began = time.monotonic()
    (os.killpg if group else os.kill)(process.pid, number)
    _, err = process.communicate(timeout=PATIENCE_S)
    seconds = time.monotonic() - began
    assert process.returncode == 130, err
    assert err.splitlines()[-1].startswith("interrupted; finished shards are kept")
    assert_lines_are_ours(err)
    assert in_time(seconds)
    ended = time.monotonic()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in below) and not members(process.pid))
    assert time.monotonic() - ended < AGENTS_S / 2
    assert not list(out.glob("*.partial"))
    assert 5 < done(out) < len(csv_lines(many)) - 1
    kept = {path: path.stat().st_mtime_ns for path in out.glob("*.done.json")}
    build(build_options(many, out, images_per_shard=1))
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@pytest.mark.heavy
def test_ray_prints_no_page_when_its_processes_are_killed(capfd, monkeypatch):
    """As they are when a build ends."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # otherwise Ray writes a token into the home folder
    with local_cluster(1):
        raylets = [pid for pid, words in children(os.getpid()).items() if re.search("raylet/raylet.*/lrfr-ray-", words)]
        os.kill(raylets[0], signal.SIGKILL)
        time.sleep(3)  # Ray tells its drivers within two seconds
    assert capfd.readouterr() == ("", "")


@pytest.mark.heavy
def test_the_handlers_and_the_environment_of_this_process_stay_as_they_were():
    """Ray resets the handler of SIGTERM behind Python's back. The token of our cluster is refused by others."""

    def caught():
        mask = re.search(r"SigCgt:\t(\w+)", Path("/proc/self/status").read_text())[1]
        return [number for number in SIGNALS if int(mask, 16) >> number - 1 & 1], [*map(signal.getsignal, SIGNALS)]

    def variables():
        return {name: value for name, value in os.environ.items() if name.startswith("RAY_")}

    importlib.import_module("ray")  # sets one of its own
    old = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        before = caught(), variables()
        assert list(unordered_map(abs, [-1], executor="ray", workers=1)) == [1]
        assert (caught(), variables()) == before
    finally:
        signal.signal(signal.SIGTERM, old)


@pytest.fixture
def short(tmp_path):
    """A folder whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="lrfr-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.mark.heavy
def test_a_killed_build_leaves_no_process_and_the_next_one_deletes_its_folder(many, tmp_path, short):
    out = tmp_path / "out"
    process = started(many, out, TMPDIR=str(short))
    wait_until(lambda: done(out) > 5 or process.poll() is not None)
    below = children(process.pid)
    process.kill()
    process.communicate(timeout=PATIENCE_S)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in below))
    assert len(list(short.glob("lrfr-ray-*"))) == 1
    process = started(many, out, TMPDIR=str(short))
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    assert list(short.glob("lrfr-*")) == []


@pytest.mark.heavy
def test_a_program_that_has_imported_ray_gets_a_cluster_of_its_own(tmp_path):
    """Ray reads its environment when it is imported, and otherwise writes a token into the home folder."""
    code = (
        "import ray; from pipeline.executors import unordered_map as f; print(*f(abs, [-1], executor='ray', workers=1))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
    words, streams = [sys.executable, "-c", code], {"capture_output": True, "text": True, "timeout": PATIENCE_S}
    process = subprocess.run(words, env=environment, **streams)
    assert (process.returncode, process.stdout) == (0, "1\n"), process.stderr
    assert list(tmp_path.iterdir()) == []


def test_ray_that_is_not_installed_is_reported(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(pipeline.ray_pool.importlib, "import_module", missing)
    with pytest.raises(WorkerError) as error:
        list(unordered_map(abs, [1], executor="ray", workers=1))
    remedy = f"pip install --editable '{REPOSITORY}[ray]'"
    assert str(error.value) == f"--executor ray: Ray is not installed; run: {remedy}"


def test_an_address_needs_the_executor(run):
    process = run("build-shards", "--ray-address", "auto")
    assert error_of(process, 2) == "Error: --ray-address is for --executor ray"


def test_a_machine_with_other_libraries_is_refused(vggface2, tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "library_versions", lambda by_landmarks: {"opencv": "4.0"})
    with pytest.raises(ShardError, match=rf"has opencv 4\.0, expected {re.escape(cv2.__version__)}; install the same"):
        build(build_options(vggface2, tmp_path / "out"))


def test_a_machine_that_does_not_share_the_folder_is_refused(vggface2, tmp_path, monkeypatch):
    run_shard = worker.run_shard

    def elsewhere(task):
        (task.options.out / "plan.json").unlink()
        run_shard(task)

    monkeypatch.setattr("pipeline.build.job.run_shard", elsewhere)
    with pytest.raises(ShardError, match=r"is not the folder of this build; all machines must share its file system"):
        build(build_options(vggface2, tmp_path / "out"))
