"""Parts of a build: any number, in any order, at the same time or killed, give the files of the plain build."""

from __future__ import annotations

import concurrent.futures
import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import types

import pytest

import pipeline.build.job
from pipeline.build import Part, build, build_part, builder, finish_build
from pipeline.build.parts import parse_part
from shards.errors import LockedError, ShardError
from shards.files import temporary_path
from shards.locks import locked
from shards.schema import Manifest
from shards.verify import verify
from tests.pipeline.build.made import CSV, contents, csv_lines, image, write_csv
from tests.processes import PATIENCE_S, REPOSITORY, error_of, wait_until
from tests.shard_sets import build_options


@pytest.fixture
def whole(vggface2, tmp_path):
    """The files of the plain build, in 4 shards."""
    build(build_options(vggface2, tmp_path / "whole"))
    return contents(tmp_path / "whole")


@pytest.mark.parametrize("order", [(1, 2), (3, 1, 2), (1, 2, 3, 4, 5, 6)])
def test_parts_in_any_order_are_the_plain_build(vggface2, tmp_path, whole, order, capsys):
    options, built = build_options(vggface2, tmp_path / "out"), set()
    for position, number in enumerate(order):
        made = build_part(options, Part(number, len(order)))
        done = {int(path.name[6:12]) for path in options.out.glob("*.done.json")}
        assert done - built == set(range(number - 1, 4, len(order)))
        built |= done
        assert (made is None) == (built != set(range(4))), position
    assert contents(options.out) == whole
    assert list(verify(options.out, full=True)) == []
    assert "of 4 shards; " in capsys.readouterr().err


def test_parts_say_what_is_missing(vggface2, tmp_path, capsys):
    options = build_options(vggface2, tmp_path / "out")
    assert build_part(options, Part(2, 3)) is None
    assert "part 2/3 done, 1 of 4 shards; missing: 3 shards of part 1/3, 3/3\n" in capsys.readouterr().err
    with pytest.raises(ShardError, match=r"an unfinished build; .* or the parts that are missing \(1 shard done\)$"):
        list(verify(options.out))
    before = contents(options.out)
    with pytest.raises(ShardError, match=r"3 of 4 shards are missing \(shard-000000.tar, .*\); run the parts"):
        finish_build(options)
    assert contents(options.out) == before


@pytest.mark.parametrize("count", [2, 4])
def test_parts_at_the_same_time_are_the_plain_build(vggface2, tmp_path, whole, count):
    """Threads lock as processes do."""
    for attempt in range(4):
        options = build_options(vggface2, tmp_path / f"out-{attempt}")
        with concurrent.futures.ThreadPoolExecutor(count) as threads:
            begun = [threads.submit(build_part, options, Part(number + 1, count)) for number in range(count)]
            made = [part.result() for part in begun]
        assert any(made)
        assert contents(options.out) == whole


def test_a_plain_build_takes_up_what_parts_left(vggface2, tmp_path, whole):
    options = build_options(vggface2, tmp_path / "out")
    build_part(options, Part(1, 2))
    kept = {path: path.stat().st_mtime_ns for path in options.out.glob("shard-*")}
    build(options)
    assert contents(options.out) == whole
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_finish_makes_no_folder(vggface2, tmp_path):
    options = build_options(vggface2, tmp_path / "mistyped")
    with pytest.raises(ShardError, match=r"mistyped: not found; --finish takes the --out of the parts$"):
        finish_build(options)
    assert not options.out.exists()


def test_finish_makes_index_and_manifest_without_the_images(vggface2, tmp_path, whole, capsys):
    options = build_options(vggface2, tmp_path / "out")
    build(options)
    for name in ("manifest.json", "index.parquet"):
        (options.out / name).unlink()
    temporary_path(options.out / "index.parquet").touch()  # of a killed one
    shutil.rmtree(vggface2 / "train")
    assert finish_build(options).images == 45
    assert contents(options.out) == whole
    assert finish_build(options).images == 45
    assert "already complete, nothing to do" in capsys.readouterr().err


def test_a_part_that_is_built_again_finishes_the_set(vggface2, tmp_path, whole):
    options = build_options(vggface2, tmp_path / "out")
    for number in (1, 2):
        build_part(options, Part(number, 2))
    (options.out / "manifest.json").unlink()  # it was killed before
    assert build_part(options, Part(1, 2)).images == 45
    assert contents(options.out) == whole


def test_a_part_retries_its_failed_images(vggface2, tmp_path, whole):
    options, lost = build_options(vggface2, tmp_path / "out"), []
    for person in range(1, 10):
        path = image(vggface2, f"n{person:06d}/0002_01")
        lost.append((path, path.read_bytes()))
        path.unlink()
    for number in (1, 2):
        build_part(options, Part(number, 2))
    assert Manifest.read(options.out).statuses == {"missing-file": 9, "ok": 36}
    for path, data in lost:
        path.write_bytes(data)
    again = build_options(vggface2, tmp_path / "out", retry_failed=True)
    between = build_part(again, Part(1, 2)).statuses["ok"]
    assert 36 < between < 45
    assert build_part(again, Part(2, 2)).statuses == {"ok": 45}
    assert contents(options.out) == whole


def test_a_part_with_other_options_or_another_listing_is_refused(vggface2, tmp_path):
    options = build_options(vggface2, tmp_path / "out")
    build_part(options, Part(1, 2))
    before = contents(options.out)
    with pytest.raises(ShardError, match="contains a build with different --min-images; choose another --out"):
        build_part(build_options(vggface2, options.out, min_images=2), Part(2, 2))
    write_csv(vggface2, csv_lines(vggface2)[:-1])
    for call in (lambda: build_part(options, Part(2, 2)), lambda: finish_build(options)):
        with pytest.raises(ShardError, match="contains a build with different --landmarks; choose another --out"):
            call()
    assert contents(options.out) == before


@pytest.mark.parametrize("links", [True, False])
def test_two_parts_that_start_at_once_with_different_options_are_reported(vggface2, tmp_path, monkeypatch, links):
    """Both find an empty folder; the plan of the one that writes it first counts."""
    options = build_options(vggface2, tmp_path / "out")
    check, calls = pipeline.build.job.check_plan, []

    def checked(*words, **more):
        check(*words, **more)
        calls.append(words)
        if len(calls) == 1:
            build_part(build_options(vggface2, tmp_path / "out", min_images=2), Part(2, 2))

    def refuse(*paths):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(pipeline.build.job, "check_plan", checked)
    with pytest.raises(ShardError, match="contains a build with different --min-images"):
        build_part(options, Part(1, 2))
    assert sorted(path.name[6:12] for path in options.out.glob("*.tar")) == ["000001", "000003"]
    assert not list(options.out.glob("*.partial"))


def test_parts_and_whole_builds_exclude_each_other(vggface2, tmp_path):
    options = build_options(vggface2, tmp_path / "out")
    options.out.mkdir()
    with locked(options.out, "testing", shared=True):
        for call in (build, finish_build):
            with pytest.raises(LockedError, match="another process is building shards here"):
                call(options)
        build_part(options, Part(1, 2))
    with locked(options.out, "testing"), pytest.raises(LockedError):
        build_part(options, Part(2, 2))


def test_a_part_leaves_the_end_to_another_that_is_still_at_work(vggface2, tmp_path, whole, capsys, monkeypatch):
    monkeypatch.setattr(builder, "END_S", 0.2)
    options = build_options(vggface2, tmp_path / "out")
    build_part(options, Part(1, 2))
    with locked(options.out, "testing", shared=True):
        assert build_part(options, Part(2, 2)) is None
    assert "another part is still at work; the last one makes index and manifest" in capsys.readouterr().err
    finish_build(options)
    assert contents(options.out) == whole


def test_a_part_waits_for_one_that_has_only_its_last_line_to_print(vggface2, tmp_path, whole, monkeypatch):
    """It found shards of this one missing, and will not look again."""
    options = build_options(vggface2, tmp_path / "out")
    printing, waited = threading.Event(), threading.Event()

    def print_slowly(part, plan, missing):
        if missing:
            printing.set()
            waited.wait(PATIENCE_S)

    monkeypatch.setattr(builder, "print_part", print_slowly)
    clock = types.SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: waited.set())
    monkeypatch.setattr(builder, "time", clock)
    monkeypatch.setattr(builder, "END_S", PATIENCE_S)
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        first = threads.submit(build_part, options, Part(1, 2))
        assert printing.wait(PATIENCE_S)
        made = build_part(options, Part(2, 2))
        waited.set()
        assert first.result() is None
    assert made
    assert contents(options.out) == whole


def test_without_file_locks_parts_leave_the_end_to_finish(vggface2, tmp_path, monkeypatch, whole, capsys):
    options = build_options(vggface2, tmp_path / "out")

    def refuse(*words):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    build_part(options, Part(1, 2))
    others = temporary_path(options.out / "shard-000002.tar"), temporary_path(options.out / "plan.json")
    for path in others:
        path.touch()  # another part may be writing them
    assert build_part(options, Part(2, 2)) is None
    assert "no file locks there; when all parts have ended, run the same with --finish" in capsys.readouterr().err
    assert all(path.exists() for path in others)
    finish_build(options)
    assert contents(options.out) == whole


def test_parts_are_numbered_from_one():
    assert parse_part("3/8") == Part(3, 8)
    for text in ("0/8", "9/8", "1", "1/2/3", "a/b", "-1/2", "1/0", "1 / 2", "1/99999999"):
        with pytest.raises(ShardError, match=r"part"):
            parse_part(text)


def test_invalid_options_of_parts_are_reported(run, vggface2, tmp_path):
    words = ["build-shards", "--out", tmp_path / "out"]
    assert "Invalid value for '--part': part 0/8: parts are numbered from 1" in run(*words, "--part", "0/8").stderr
    assert "'8' is not a part I/N, such as 1/8" in run(*words, "--part", "8").stderr
    for option in (("--part", "1/2"), ("--retry-failed",)):
        line = error_of(run(*words, "--finish", *option), 2)
        assert line == f"Error: --finish builds nothing; leave out {option[0]}"
    for option in (("--part", "1/2"), ("--finish",)):
        line = error_of(run(*words, "--landmarks", "auto", *option))
        assert line.startswith("Error: parts need a landmark table, not --landmarks auto; run: ")
    assert not (tmp_path / "out").exists()


def test_the_command_line_builds_parts(run, vggface2, tmp_path):
    words = ["build-shards", "--out", tmp_path / "out", "--executor", "serial"]
    for number, end in ((2, "missing: 1 shard of part 1/2"), (1, "rejected: none")):
        process = run(*words, "--part", f"{number}/2", "--images-per-shard", "23")
        assert process.returncode == 0
        assert process.stderr.splitlines()[-1].endswith(end)
    assert run("verify", tmp_path / "out").returncode == 0


@pytest.mark.heavy
@pytest.mark.parametrize("seed", range(4))
def test_killed_parts_go_on_by_the_same_command(vggface2, tmp_path, seed):
    """Three parts at once as processes, of which one is killed somewhere, and started again."""
    small = {"images_per_shard": 1}
    build(build_options(vggface2, tmp_path / "whole", **small))
    out = tmp_path / "out"
    words = [sys.executable, str(REPOSITORY / "cli.py"), "build-shards", "--root", str(vggface2), "--out", str(out)]
    words += ["--landmarks", str(vggface2 / CSV), "--images-per-shard", "1", "--workers", "1", "--part"]

    def started(number):
        return subprocess.Popen([*words, f"{number}/3"], stderr=subprocess.PIPE, text=True)

    parts = [started(number) for number in (1, 2, 3)]
    wait_until(lambda: parts[0].poll() is not None or len(list(out.glob("*.done.json"))) > 5 * seed)
    time.sleep(0.01 * seed)
    parts[0].send_signal(signal.SIGKILL)
    again = started(1)
    for process in (*parts, again):
        _, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode in ((0,) if process is not parts[0] else (0, -signal.SIGKILL)), err
    assert contents(out) == contents(tmp_path / "whole")
