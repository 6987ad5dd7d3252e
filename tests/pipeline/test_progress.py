"""Progress: a live bar on a terminal, plain lines in a log file; resumed work does not count for the rate."""

from __future__ import annotations

import gc
import io
import re
import subprocess
import sys

import pytest
import tqdm.std

import pipeline.progress
from pipeline.progress import Progress


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """The time in seconds, which stands still until a test changes it."""
    now = [1000.0]
    monkeypatch.setattr(tqdm.std, "time", lambda: now[0])
    return now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_file_gets_one_line_at_the_end_of_short_work(clock, capsys):
    with Progress("embed", 4, "faces") as progress:
        for _ in range(4):
            clock[0] += 2
            progress.update()
    assert capsys.readouterr().err == "embed: 4/4 faces [00:08<00:00,  0.50 faces/s]\n"


def test_a_log_file_gets_a_line_every_interval(capsys, monkeypatch):
    monkeypatch.setattr(pipeline.progress, "LOG_INTERVAL_S", 0.0)
    with Progress("verify", 12_000) as progress:
        for _ in range(3):
            progress.update(4000)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" images ")[0] for line in lines] == [
        "verify: 4,000/12,000",
        "verify: 8,000/12,000",
        "verify: 12,000/12,000",
        "verify: 12,000/12,000",
    ]


@pytest.mark.parametrize("file", [Terminal, io.StringIO])
def test_a_message_is_printed_above_the_bar(monkeypatch, file):
    monkeypatch.setattr(sys, "stderr", file())
    with Progress("build-shards", 2) as progress:
        progress.update()
        progress.print_line("a.csv: odd")
    shown = re.split(r"[\r\n]", sys.stderr.getvalue())
    assert "a.csv: odd" in shown  # alone on its line
    assert any(line.startswith("build-shards: ") for line in shown[shown.index("a.csv: odd") :])


def test_skipped_work_moves_the_count_and_not_the_rate(clock, capsys, monkeypatch):
    monkeypatch.setattr(pipeline.progress, "LOG_INTERVAL_S", 60.0)
    with Progress("build-shards", 1000) as progress:
        progress.skip(900)
        clock[0] += 10
        progress.update(50)
    assert capsys.readouterr().err == "build-shards: 950/1,000 images [00:10<00:10,  5.00 images/s]\n"


def test_bytes_have_units_and_a_log_line_is_not_cut(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    label = "s3://bucket/" + 100 * "x"
    with Progress(label, 100 * 10**9, "B", live=False) as progress:
        progress.skip(40 * 10**9)
        clock[0] += 10
        progress.update(20 * 10**9)
    assert terminal.getvalue().splitlines()[-1] == f"{label}: 60.0GB/100GB [00:10<00:20, 2.00GB/s]"


def test_work_that_stops_early_says_how_far_it_came(capsys):
    def interrupted():
        with Progress("embed", 4) as progress:
            progress.update(3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert capsys.readouterr().err.startswith("embed: 3/4 images [")


def test_a_terminal_shows_one_line_that_is_drawn_again(monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setattr(pipeline.progress, "TERMINAL_INTERVAL_S", 0.0)
    with Progress("embed", 4) as progress:
        progress.update(2)
    shown = terminal.getvalue()
    assert shown.count("\n") == 1
    assert shown.endswith("\n")
    drawn = shown.split("\r")[1:]
    assert [re.search(r"^embed: +(\d+)%\|.*\| (\d)/4 images \[", line).groups() for line in drawn] == [
        ("0", "0"),
        ("50", "2"),
        ("50", "2"),
    ]


def test_no_work_is_no_error(capsys, monkeypatch):
    with Progress("embed", 0):
        pass
    assert capsys.readouterr().err.startswith("embed: 0/0 images [")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with Progress("embed", 0):
        pass
    assert "0/0 images" in terminal.getvalue()


def test_nothing_is_left_behind_in_the_process_that_uses_it():
    """Neither tqdm's monitor thread nor a start method of processes that the program can no longer choose."""
    code = """
import multiprocessing, threading
from pipeline.progress import Progress
with Progress("embed", 1) as progress:
    progress.update()
    assert threading.active_count() == 1
multiprocessing.set_start_method("spawn")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)


def test_a_bar_that_an_interruption_left_half_built_is_dropped_in_silence(monkeypatch):
    errors = []
    monkeypatch.setattr(sys, "unraisablehook", errors.append)
    Progress.__new__(Progress)
    gc.collect()
    assert errors == []
